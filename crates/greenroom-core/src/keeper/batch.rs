//! Reconciles a batch of claimed sessions: observe, decide, commit the decision, act.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use greenroom_domain::lifecycle::{Action, Decision, Observation, decide, decide_listed, postpone};
use greenroom_livekit::RoomList;
use greenroom_store::{CLAIM_LEASE, Claim, ClaimBatch};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use super::act::ACTION_TIMEOUT;
use super::observe::Observed;
use crate::{Error, Greenroom};

/// Maximum number of sessions of a batch that are reconciled concurrently.
const OBSERVE_CONCURRENCY: usize = 64;

/// Time limit for the observations of a batch while its sessions hold their permits.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Time limit for all observations of a batch. The rest of [`CLAIM_LEASE`] is for writing the
/// results. The commit of a decision with actions sets a new lease.
const WAIT_TIMEOUT: Duration = Duration::from_secs(12);

const _: () = assert!(WAIT_TIMEOUT.as_secs() < CLAIM_LEASE.num_seconds().unsigned_abs());

/// Time without another result after which the idle sessions found so far are rescheduled, in one
/// statement.
const RESCHEDULE_DELAY: Duration = Duration::from_millis(500);

/// A session that only needs a new time for its next check. `None` means no further check.
type IdleCheck = (Claim, Option<DateTime<Utc>>);

/// A session that is not idle, with its permit while it has one.
type BusyCheck = (Claim, Step, Option<OwnedSemaphorePermit>);

/// The time that a batch has for its observations.
#[derive(Clone, Copy)]
struct Turn {
    /// PostgreSQL's time, on which the decisions depend.
    at: DateTime<Utc>,
    deadline: Instant,
}

/// The outcome of one session of a batch, as far as its turn goes.
enum Reconciled {
    Done,
    Idle(IdleCheck),
    /// Calls to LiveKit for other sessions took the whole turn. The room is listed with this sid.
    Waiting(Claim, String),
}

impl Greenroom {
    /// Reconciles a batch. Idle sessions are rescheduled together, in one statement; a decision
    /// about any other session is applied at once. Each session releases its permit as soon as it
    /// is reconciled, so that the slowest session of a batch does not delay further claims.
    ///
    /// A session that waits for its calls stays claimed for a second turn, because putting it back
    /// is a write. It then has no permit, so that waiting sessions do not block further claims: at
    /// most as many sessions wait as there are permits.
    pub(super) async fn reconcile_batch(
        &self,
        claims: ClaimBatch,
        mut permits: OwnedSemaphorePermit,
    ) {
        let ClaimBatch { at, sessions, .. } = claims;
        let begun = Instant::now();
        let first = Turn { at, deadline: begun + OBSERVE_TIMEOUT };
        let second = Turn { at: at + OBSERVE_TIMEOUT, deadline: begun + WAIT_TIMEOUT };
        let Some(rooms) = self.list_rooms(&sessions, first.deadline).await else {
            let released = self.shared.breaker.hold(sessions);
            self.release_after_outage(released).await;
            return;
        };
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        for claim in sessions {
            // Most sessions are idle and need no call to LiveKit of their own.
            match next_step_isolated(&claim, &rooms, at) {
                Some(Step::Reschedule(next_check_at)) => idle.push((claim, next_check_at)),
                Some(step) => busy.push((claim, step, permits.split(1))),
                None => {}
            }
        }
        drop(permits);
        let waiting = self.take_turn(first, idle, busy).await;
        let busy = waiting.into_iter().map(|(claim, sid)| (claim, Step::Observe(sid), None));
        let waiting = self.take_turn(second, Vec::new(), busy.collect()).await;
        let postponed = waiting.into_iter().map(|(claim, _)| {
            let next_check_at = postpone(&claim.session, at + WAIT_TIMEOUT).state.next_check_at;
            (claim, next_check_at)
        });
        self.reschedule(&postponed.collect::<Vec<_>>()).await;
    }

    /// Reconciles sessions until the turn is over. Returns the sessions that still wait for a call
    /// to LiveKit, with the sids of their rooms.
    async fn take_turn(
        &self,
        turn: Turn,
        mut idle: Vec<IdleCheck>,
        busy: Vec<BusyCheck>,
    ) -> Vec<(Claim, String)> {
        let reconciled = busy.into_iter().map(|(claim, step, permit)| async move {
            let reconciled = self.reconcile_isolated(claim, step, turn).await;
            drop(permit);
            reconciled
        });
        let reconciled = stream::iter(reconciled).buffer_unordered(OBSERVE_CONCURRENCY);
        let mut reconciled = std::pin::pin!(reconciled);
        let mut waiting = Vec::new();
        // Spawn the writes instead of awaiting them here: a session that is not polled keeps its
        // permit.
        let mut writes = JoinSet::new();
        loop {
            match timeout(RESCHEDULE_DELAY, reconciled.next()).await {
                Ok(Some(Reconciled::Idle(idle_check))) => idle.push(idle_check),
                Ok(Some(Reconciled::Waiting(claim, sid))) => waiting.push((claim, sid)),
                Ok(Some(Reconciled::Done)) => {}
                Ok(None) => break,
                Err(_) => self.spawn_reschedule(&mut idle, &mut writes),
            }
        }
        self.spawn_reschedule(&mut idle, &mut writes);
        while writes.join_next().await.is_some() {}
        waiting
    }

    /// Reconciles one session of a batch. An error or a panic is logged and does not affect the
    /// other sessions; the session is claimed again when its lease expires.
    async fn reconcile_isolated(&self, claim: Claim, step: Step, turn: Turn) -> Reconciled {
        let id = claim.id;
        let reconcile = self.reconcile(claim, step, turn);
        match AssertUnwindSafe(reconcile).catch_unwind().await {
            Ok(Ok(reconciled)) => reconciled,
            Ok(Err(error)) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "failed to apply session decision");
                Reconciled::Done
            }
            Err(_) => {
                tracing::error!(session_id = %id, "panicked while reconciling session");
                Reconciled::Done
            }
        }
    }

    async fn reconcile(&self, claim: Claim, step: Step, turn: Turn) -> Result<Reconciled, Error> {
        let decision = match step {
            Step::Reschedule(next_check_at) => {
                return Ok(Reconciled::Idle((claim, next_check_at)));
            }
            Step::Apply(decision) => *decision,
            Step::Observe(sid) => {
                let decide = self.decide_by_room(&claim, &sid, turn.at);
                let Ok(decision) = timeout_at(turn.deadline, decide).await else {
                    return Ok(Reconciled::Waiting(claim, sid));
                };
                if changes_nothing(&claim, &decision) {
                    return Ok(Reconciled::Idle((claim, decision.state.next_check_at)));
                }
                decision
            }
        };
        self.apply(claim, &decision).await?;
        Ok(Reconciled::Done)
    }

    /// Observes a session with a listed room, and decides.
    async fn decide_by_room(&self, claim: &Claim, sid: &str, at: DateTime<Utc>) -> Decision {
        let session = &claim.session;
        if session.state.is_past_max_duration(at) {
            return decide(session, None, at);
        }
        let mut observed = self.observe_room(claim, sid).await;
        if let Observed::NodeKnownGone = observed {
            let decision = decide(session, Some(&Observation::default()), at);
            if !decision.state.is_over() {
                return decision;
            }
            // The report is up to 30 s old, and the node may be back: ask again before the end.
            observed = self.confirm_node_gone(claim).await;
        }
        match observed {
            Observed::Room(observation) => decide(session, Some(&observation), at),
            // If calls fail for many rooms, only the urgent ones are repeated soon.
            Observed::NodeKnownGone | Observed::Failed if !session.is_idle(at) => {
                decide_listed(session, sid, at)
            }
            _ => postpone(session, at),
        }
    }

    /// Releases the sessions of failed lists after an outage. Without that, their leases would have
    /// to expire first. Writing them back earlier would load PostgreSQL without a benefit.
    pub(super) async fn release_after_outage(&self, sessions: Vec<Claim>) {
        let due = |claim: Claim| {
            let next_check_at = claim.session.state.next_check_at;
            (claim, next_check_at)
        };
        self.reschedule(&sessions.into_iter().map(due).collect::<Vec<_>>()).await;
    }

    /// Commits a decision, then executes its actions.
    async fn apply(&self, claim: Claim, decision: &Decision) -> Result<(), Error> {
        let is_paused = self.shared.breaker.is_open();
        if is_paused && decision.actions.iter().any(Action::dispatches_agent) {
            // The state would record a dispatch that is not made.
            return self.release(&claim).await;
        }
        let mut written = claim.clone();
        let commit = async |db: &mut _| {
            let deadline = Instant::now() + ACTION_TIMEOUT;
            Ok((written.commit(db, decision).await?, written, deadline))
        };
        let (committed, written, deadline) = self.shared.database.run_for_keeper(commit).await?;
        if !committed {
            // Another writer changed the session: discard the observation and repeat it.
            self.release(&claim).await?;
            self.shared.due.notify_one();
            return Ok(());
        }
        self.shared.waiters.wake();
        if !decision.actions.is_empty() {
            // During an outage, the actions are decided again afterwards.
            if is_paused {
                self.shared.room_nodes.forget(&written.room_name);
            } else {
                self.act(&written, &decision.actions, &decision.state, deadline).await;
            }
            self.release(&written).await?;
        }
        Ok(())
    }

    async fn release(&self, claim: &Claim) -> Result<(), Error> {
        self.shared.database.run_for_keeper(async |db: &mut _| claim.release(db).await).await
    }

    fn spawn_reschedule(&self, idle: &mut Vec<IdleCheck>, writes: &mut JoinSet<()>) {
        if idle.is_empty() {
            return;
        }
        let (greenroom, idle) = (self.clone(), std::mem::take(idle));
        writes.spawn(async move { greenroom.reschedule(&idle).await }.in_current_span());
    }

    /// Writes the next checks of idle sessions. A session that another writer changed meanwhile is
    /// released instead, and observed again.
    async fn reschedule(&self, idle: &[IdleCheck]) {
        if idle.is_empty() {
            return;
        }
        let reschedule = async |db: &mut _| {
            let rescheduled = Claim::reschedule(db, idle).await?;
            let mut any_changed = false;
            for (claim, _) in idle.iter().filter(|(claim, _)| !rescheduled.contains(&claim.id)) {
                claim.release(db).await?;
                any_changed = true;
            }
            Ok(any_changed)
        };
        match self.shared.database.run_for_keeper(reschedule).await {
            Ok(true) => self.shared.due.notify_one(),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                count = idle.len(),
                error = &error as &dyn std::error::Error,
                "failed to write back session checks"
            ),
        }
    }
}

/// What to do with a claimed session, as far as the list of rooms shows it.
enum Step {
    /// The decision changes nothing: only write the time of the next check.
    Reschedule(Option<DateTime<Utc>>),
    /// The list was sufficient for this decision.
    Apply(Box<Decision>),
    /// The room exists with this sid, and a decision needs its participants and dispatches.
    Observe(String),
}

/// [`next_step`], or `None` if it panicked. The session is claimed again when its lease expires.
fn next_step_isolated(claim: &Claim, rooms: &RoomList, at: DateTime<Utc>) -> Option<Step> {
    let step = std::panic::catch_unwind(AssertUnwindSafe(|| next_step(claim, rooms, at)));
    step.inspect_err(|_| {
        tracing::error!(session_id = %claim.id, "panicked while reconciling session");
    })
    .ok()
}

/// Decides by the list of rooms, if that is sufficient: the room does not exist, or the session is
/// over and only the existence of its room matters.
fn next_step(claim: &Claim, rooms: &RoomList, at: DateTime<Utc>) -> Step {
    let observation = match rooms.get(&claim.room_name) {
        Some(Ok(sid)) if !claim.session.state.is_over() => return Step::Observe(sid.clone()),
        Some(Ok(sid)) => Some(Observation { room: Some(sid.clone()), ..Observation::default() }),
        // If LiveKit cannot list many rooms, only the urgent ones are repeated soon. The others are
        // then spread over several lists.
        Some(Err(_)) if claim.session.is_idle(at) => {
            return Step::Reschedule(postpone(&claim.session, at).state.next_check_at);
        }
        Some(Err(_)) => None,
        None => Some(Observation::default()),
    };
    let decision = decide(&claim.session, observation.as_ref(), at);
    if changes_nothing(claim, &decision) {
        Step::Reschedule(decision.state.next_check_at)
    } else {
        Step::Apply(Box::new(decision))
    }
}

/// Whether a decision changes nothing but the time of the next check.
fn changes_nothing(claim: &Claim, decision: &Decision) -> bool {
    let mut before = claim.session.state.clone();
    before.next_check_at = decision.state.next_check_at;
    decision.actions.is_empty() && decision.events.is_empty() && before == decision.state
}
