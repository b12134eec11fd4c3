//! Checks a batch of sessions: read, observe, decide, commit the decision, act.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use greenroom_domain::lifecycle::{Action, Decision, Observation, decide, decide_listed, postpone};
use greenroom_livekit::RoomList;
use greenroom_store::{Claim, ClaimBatch, HeldBuckets, UnreadableSession};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use super::act::ACTION_TIMEOUT;
use super::observe::Observed;
use super::schedule::{Reason, Turn, Waiting};
use crate::{Error, Greenroom};

/// Maximum number of sessions of a batch that are checked concurrently.
const OBSERVE_CONCURRENCY: usize = 64;

/// Time limit for all observations of a batch. A slow LiveKit must not keep sessions from their next
/// turn.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Time without another result after which the idle sessions found so far are rescheduled, in one
/// statement.
const RESCHEDULE_DELAY: Duration = Duration::from_millis(500);

/// Time until a session that cannot be decoded is read again: its postponement, and the time after
/// which another process may check it.
const UNREADABLE_DELAY: Duration = Duration::from_secs(90);

/// Time since the latest webhook in which LiveKit counts as sending webhooks. Idle sessions are then
/// checked after five thirds of the interval: at most two intervals, since the interval of a session
/// is up to a fifth longer than configured.
const WEBHOOK_WINDOW: Duration = Duration::from_mins(1);

/// A session that is being checked.
pub(super) struct Check {
    pub(super) claim: Claim,
    turn: Turn,
}

/// When a batch was read.
#[derive(Debug, Clone, Copy)]
struct ReadTime {
    /// By PostgreSQL's clock.
    at: DateTime<Utc>,
    /// By the clock of this process.
    instant: Instant,
}

/// A session of which only the stored time of the next check changes, and when it is checked next in
/// this process.
struct IdleCheck {
    check: Check,
    next_check_at: Option<DateTime<Utc>>,
    waiting: Option<Waiting>,
}

impl Greenroom {
    /// Checks a batch. Idle sessions are rescheduled together, in one statement; a decision about
    /// any other session is applied at once. Each session releases its permit as soon as it is
    /// checked, so that the slowest session of a batch does not delay further ones.
    pub(super) async fn check_batch(
        &self,
        turns: Vec<Turn>,
        held: &HeldBuckets,
        mut permits: OwnedSemaphorePermit,
    ) {
        let Some((checks, read)) = self.read_batch(turns, held).await else { return };
        let (checks, mut idle) = self.put_off_while_calls_are_scarce(checks, read);
        let deadline = Instant::now() + OBSERVE_TIMEOUT;
        let Some(rooms) = self.list_rooms(&checks, deadline).await else {
            // The checks wait until LiveKit lists rooms again.
            for Check { turn, .. } in checks {
                turn.end(Some(Waiting { at: Instant::now(), reason: Reason::Change }));
            }
            return self.reschedule(idle).await;
        };
        let mut busy = Vec::new();
        for check in checks {
            // Most sessions are idle and need no call to LiveKit of their own.
            match next_step_isolated(&check.claim, &rooms, read.at) {
                Some(Step::Reschedule(decision)) => {
                    idle.extend(self.put_back(check, &decision, read));
                }
                Some(step) => busy.push((check, step, permits.split(1))),
                None => {}
            }
        }
        drop(permits);
        let checked = busy.into_iter().map(|(check, step, permit)| async move {
            let idle_check = self.check_isolated(check, step, read, deadline).await;
            drop(permit);
            idle_check
        });
        let checked = stream::iter(checked).buffer_unordered(OBSERVE_CONCURRENCY);
        let mut checked = std::pin::pin!(checked);
        // Spawn the writes instead of awaiting them here: a session that is not polled keeps its
        // permit.
        let mut writes = JoinSet::new();
        loop {
            match timeout(RESCHEDULE_DELAY, checked.next()).await {
                Ok(Some(idle_check)) => idle.extend(idle_check),
                Ok(None) => break,
                Err(_) => self.spawn_reschedule(&mut idle, &mut writes),
            }
        }
        self.spawn_reschedule(&mut idle, &mut writes);
        while writes.join_next().await.is_some() {}
    }

    /// Reads the sessions of a batch. `None` means that there is nothing to check.
    async fn read_batch(
        &self,
        turns: Vec<Turn>,
        held: &HeldBuckets,
    ) -> Option<(Vec<Check>, ReadTime)> {
        let keys: Vec<_> = turns.iter().map(Turn::key).collect();
        let defaults = self.shared.settings.policy;
        let read = async |db: &mut _| Claim::read(db, &keys, held, defaults).await;
        let batch = match self.shared.database.run_for_keeper(read).await {
            Ok(batch) => batch,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(count = keys.len(), error, "failed to read sessions to check");
                return None;
            }
        };
        let instant = Instant::now();
        let ClaimBatch { at, sessions, unreadable, .. } = batch;
        if !unreadable.is_empty() {
            self.postpone_unreadable(&unreadable).await;
        }
        let mut turns: HashMap<_, _> = turns.into_iter().map(|turn| (turn.key(), turn)).collect();
        for session in &unreadable {
            if let Some(turn) = turns.remove(&session.key()) {
                // Until then, a process of another version may check the session.
                let at = instant + UNREADABLE_DELAY;
                turn.end(Some(Waiting { at, reason: Reason::Retry }));
            }
        }
        let check = |claim: Claim| {
            let turn = turns.remove(&claim.key())?;
            Some(Check { claim, turn })
        };
        let checks: Vec<_> = sessions.into_iter().filter_map(check).collect();
        // The other sessions were deleted, or need no further check by this process.
        for turn in turns.into_values() {
            turn.end(None);
        }
        (!checks.is_empty()).then_some((checks, ReadTime { at, instant }))
    }

    /// Puts back idle sessions without a call to LiveKit, while calls are scarce.
    fn put_off_while_calls_are_scarce(
        &self,
        checks: Vec<Check>,
        read: ReadTime,
    ) -> (Vec<Check>, Vec<IdleCheck>) {
        if !self.shared.are_calls_scarce() {
            return (checks, Vec::new());
        }
        let (idle, in_progress) =
            checks.into_iter().partition::<Vec<_>, _>(|check| check.claim.session.is_idle(read.at));
        let put_back = |check: Check| {
            let decision = postpone(&check.claim.session, read.at);
            self.put_back(check, &decision, read)
        };
        (in_progress, idle.into_iter().filter_map(put_back).collect())
    }

    /// Postpones sessions that cannot be decoded. If that fails, they are read again soon.
    async fn postpone_unreadable(&self, unreadable: &[UnreadableSession]) {
        for UnreadableSession { id, error, .. } in unreadable {
            tracing::error!(session_id = %id, error, "postponed session that cannot be decoded");
        }
        let postpone = async |db: &mut _| Claim::postpone_unreadable(db, unreadable).await;
        if let Err(error) = self.shared.database.run_for_keeper(postpone).await {
            tracing::warn!(
                count = unreadable.len(),
                error = &error as &dyn std::error::Error,
                "failed to write back session checks"
            );
        }
    }

    /// Ends the turn of a session that a decision does not change, unless the stored time of its
    /// next check must change.
    fn put_back(&self, check: Check, decision: &Decision, read: ReadTime) -> Option<IdleCheck> {
        let is_idle = check.claim.session.is_idle(read.at);
        let reason = if is_idle { Reason::Reconciliation } else { Reason::Change };
        let (waiting, next_check_at) = self.next_check(&check.claim, decision, read, reason);
        if next_check_at == check.claim.session.state.next_check_at {
            check.turn.end(waiting);
            return None;
        }
        Some(IdleCheck { check, next_check_at, waiting })
    }

    /// Returns when the session waits for its next check in this process, and the time of the next
    /// check to store.
    fn next_check(
        &self,
        claim: &Claim,
        decision: &Decision,
        read: ReadTime,
        reason: Reason,
    ) -> (Option<Waiting>, Option<DateTime<Utc>>) {
        let is_held = claim.epoch.is_some();
        if !is_held || self.shared.schedule.is_full() {
            return (None, decision.check_at);
        }
        if decision.check_at == decision.state.next_check_at {
            // PostgreSQL shows in time that the session is due.
            return (None, decision.check_at);
        }
        // A webhook makes its session due, so that idle sessions are checked less often.
        let is_informed =
            reason == Reason::Reconciliation && self.shared.received_webhook_within(WEBHOOK_WINDOW);
        let waiting = decision.check_at.map(|check_at| {
            let delay = (check_at - read.at).to_std().unwrap_or_default();
            let delay = if is_informed { delay * 5 / 3 } else { delay };
            Waiting { at: read.instant + delay, reason }
        });
        (waiting, decision.state.next_check_at)
    }

    /// Checks one session of a batch. An error or a panic is logged and does not affect the other
    /// sessions; the session is checked again soon.
    async fn check_isolated(
        &self,
        check: Check,
        step: Step,
        read: ReadTime,
        deadline: Instant,
    ) -> Option<IdleCheck> {
        let id = check.claim.id;
        let checked = self.check(check, step, read, deadline);
        match AssertUnwindSafe(checked).catch_unwind().await {
            Ok(Ok(idle_check)) => idle_check,
            Ok(Err(error)) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "failed to apply session decision");
                None
            }
            Err(_) => {
                tracing::error!(session_id = %id, "panicked while reconciling session");
                None
            }
        }
    }

    async fn check(
        &self,
        check: Check,
        step: Step,
        read: ReadTime,
        deadline: Instant,
    ) -> Result<Option<IdleCheck>, Error> {
        let decision = match step {
            Step::Reschedule(decision) => return Ok(self.put_back(check, &decision, read)),
            Step::Apply(decision) => *decision,
            Step::Observe(sid) => {
                let decide = self.decide_by_room(&check.claim, &sid, read.at);
                // Calls for other sessions took all the time: the check is repeated soon, without a
                // write.
                let Ok(decision) = timeout_at(deadline, decide).await else { return Ok(None) };
                if changes_nothing(&check.claim, &decision) {
                    return Ok(self.put_back(check, &decision, read));
                }
                decision
            }
        };
        self.apply(check, decision, read).await?;
        Ok(None)
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

    /// Commits a decision, then executes its actions.
    async fn apply(
        &self,
        Check { claim, turn }: Check,
        mut decision: Decision,
        read: ReadTime,
    ) -> Result<(), Error> {
        let is_paused = self.shared.breaker.is_open();
        if is_paused && decision.actions.iter().any(Action::dispatches_agent) {
            // The state would record a dispatch that is not made. The turn is repeated.
            return Ok(());
        }
        let (waiting, next_check_at) = self.next_check(&claim, &decision, read, Reason::Change);
        decision.state.next_check_at = next_check_at;
        let commit = async |db: &mut _| {
            let deadline = Instant::now() + ACTION_TIMEOUT;
            Ok((claim.commit(db, &decision).await?, deadline))
        };
        let (committed, deadline) = self.shared.database.run_for_keeper(commit).await?;
        if !committed {
            // Another writer changed the session, or the bucket has moved: discard the observation,
            // and repeat it.
            turn.end(self.at_once());
            return Ok(());
        }
        self.shared.waiters.wake();
        if !decision.actions.is_empty() {
            // During an outage, the actions are decided again afterwards.
            if is_paused {
                self.shared.room_nodes.forget(&claim.room_name);
            } else {
                self.act(&claim, &decision.actions, &decision.state, deadline).await;
            }
        }
        turn.end(waiting);
        Ok(())
    }

    /// The next check of a session that was changed during its check. It begins at once, because
    /// this wakes the keeper.
    fn at_once(&self) -> Option<Waiting> {
        self.shared.due.notify_one();
        Some(Waiting { at: Instant::now(), reason: Reason::Change })
    }

    fn spawn_reschedule(&self, idle: &mut Vec<IdleCheck>, writes: &mut JoinSet<()>) {
        let (greenroom, idle) = (self.clone(), std::mem::take(idle));
        writes.spawn(async move { greenroom.reschedule(idle).await }.in_current_span());
    }

    /// Writes the next checks of idle sessions. A session that another writer changed meanwhile is
    /// observed again.
    async fn reschedule(&self, idle: Vec<IdleCheck>) {
        if idle.is_empty() {
            return;
        }
        let next_checks: Vec<_> =
            idle.iter().map(|idle| (&idle.check.claim, idle.next_check_at)).collect();
        let reschedule = async |db: &mut _| Claim::reschedule(db, &next_checks).await;
        match self.shared.database.run_for_keeper(reschedule).await {
            Ok(rescheduled) => {
                for IdleCheck { check, waiting, .. } in idle {
                    let is_written = rescheduled.contains(&check.claim.id);
                    check.turn.end(if is_written { waiting } else { self.at_once() });
                }
            }
            Err(error) => tracing::warn!(
                count = next_checks.len(),
                error = &error as &dyn std::error::Error,
                "failed to write back session checks"
            ),
        }
    }
}

/// What to do with a session, as far as the list of rooms shows it.
enum Step {
    /// The decision changes nothing but the time of the next check.
    Reschedule(Box<Decision>),
    /// The list was sufficient for this decision.
    Apply(Box<Decision>),
    /// The room exists with this sid, and a decision needs its participants and dispatches.
    Observe(String),
}

/// [`next_step`], or `None` if it panicked. The session is checked again soon.
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
            return Step::Reschedule(Box::new(postpone(&claim.session, at)));
        }
        Some(Err(_)) => None,
        None => Some(Observation::default()),
    };
    let decision = decide(&claim.session, observation.as_ref(), at);
    if changes_nothing(claim, &decision) {
        Step::Reschedule(Box::new(decision))
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
