//! The keeper: the loop that claims due sessions, observes them in LiveKit and applies decisions.
//!
//! The order of the steps makes the keeper safe: claim, observe, decide, commit the decision, act.
//! If a process dies at any point, an observation or an action is repeated, but never skipped. If
//! two processes observe the same session, only one of them commits. Dispatching an agent cannot be
//! repeated safely: the keeper dispatches an agent only after an observation without a pending
//! agent, and only after it recorded the dispatch.

mod act;
mod observe;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use greenroom_domain::lifecycle::{Decision, Observation, decide};
use greenroom_livekit::RoomList;
use greenroom_store::{CLAIM_LEASE, Claim, ClaimBatch, ClaimOrder, UnreadableSession};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use crate::{Error, Greenroom};

/// Interval between claims. A full claim is followed by another one at once, and a session that
/// becomes due in this process ends the interval early.
const CLAIM_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum number of sessions per claim. One call to LiveKit lists the rooms of a whole batch.
const MAX_BATCH: u32 = 256;

/// Maximum number of sessions claimed at once. Sessions that become due meanwhile wait. While
/// LiveKit does not respond, each session stays claimed for seconds; 512 sessions are still enough
/// to use all concurrent calls that `LIVEKIT_MAX_IN_FLIGHT` allows by default.
const MAX_CLAIMED: usize = 512;

/// Minimum number of free permits for a claim, because many small claims would be many queries.
const MIN_BATCH: u32 = 32;

/// Maximum number of sessions of a batch that are reconciled concurrently.
const OBSERVE_CONCURRENCY: usize = 64;

/// Time limit for all observations of a batch. The rest of [`CLAIM_LEASE`] is for writing the
/// results. The commit of a decision with actions sets a new lease.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(8);

const _: () = assert!(OBSERVE_TIMEOUT.as_secs() < CLAIM_LEASE.num_seconds().unsigned_abs());

/// Time without another result after which the idle sessions found so far are rescheduled, in one
/// statement.
const RESCHEDULE_DELAY: Duration = Duration::from_millis(500);

/// A session that only needs a new time for its next check. `None` means no further check.
type IdleCheck = (Claim, Option<DateTime<Utc>>);

impl Greenroom {
    /// Reconciles sessions with LiveKit until `stop` completes.
    ///
    /// The keeper then claims no more sessions, finishes the sessions in progress, and returns. Any
    /// number of processes can run a keeper on the same database: PostgreSQL leases each session to
    /// one of them at a time. A panic while a session is reconciled is logged, and the keeper
    /// continues.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the work in progress. No session is lost: leases expire after at
    /// most [`CLAIM_LEASE`], and then any keeper claims the sessions again.
    pub async fn run_keeper(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        // A `JoinSet` aborts its tasks if this future is dropped.
        let mut retention = JoinSet::new();
        let greenroom = self.clone();
        retention.spawn(async move { greenroom.run_retention().await });
        let semaphore = Arc::new(Semaphore::new(MAX_CLAIMED));
        let mut batches = JoinSet::new();
        let mut order = ClaimOrder::OldestFirst;
        let mut is_failing = false;
        loop {
            while batches.try_join_next().is_some() {}
            let permits = tokio::select! {
                () = &mut stop => None,
                permits = acquire_permits(&semaphore) => permits,
            };
            let Some(mut permits) = permits else { break };
            let limit = permits.num_permits();
            let claims = claims_or_empty(self.claim(limit, order).await, &mut is_failing);
            let size = claims.sessions.len();
            let claimed = size + claims.unreadable.len();
            // After a full claim, more sessions are probably due. Every second claim then starts
            // with the sessions that became due last, so that a backlog, as after an outage, does
            // not delay users who are in a call.
            let is_full = claimed > 0 && claimed == limit;
            order = if is_full { order.toggled() } else { ClaimOrder::OldestFirst };
            // Keep one permit per claimed session and release the rest now, so that a few slow
            // sessions cannot block further claims.
            if let Some(permits) = permits.split(size).filter(|_| size > 0) {
                let greenroom = self.clone();
                let reconcile_batch =
                    async move { greenroom.reconcile_batch(claims, permits).await };
                batches.spawn(reconcile_batch.in_current_span());
            }
            drop(permits);
            let pause = if is_full { Duration::ZERO } else { CLAIM_INTERVAL };
            tokio::select! {
                () = &mut stop => break,
                _ = timeout(pause, self.shared.due.notified()) => {}
            }
        }
        retention.abort_all();
        while batches.join_next().await.is_some() {}
    }

    async fn claim(&self, limit: usize, order: ClaimOrder) -> Result<ClaimBatch, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let urgency = self.shared.livekit.limiter.urgency();
        let defaults = self.shared.settings.policy;
        let claim = async |db: &mut _| Claim::due(db, limit, urgency, order, defaults).await;
        let batch = self.shared.database.run_for_keeper(claim).await?;
        if !batch.unreadable.is_empty() {
            self.postpone_unreadable(&batch.unreadable).await;
        }
        Ok(batch)
    }

    /// Postpones sessions that cannot be decoded. If that fails, they are claimed again after their
    /// lease.
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

    /// Reconciles a batch. Idle sessions are rescheduled together, in one statement; a decision
    /// about any other session is applied at once. Each session releases its permit as soon as it
    /// is reconciled, so that the slowest session of a batch does not delay further claims.
    async fn reconcile_batch(&self, claims: ClaimBatch, mut permits: OwnedSemaphorePermit) {
        let ClaimBatch { at, sessions, .. } = claims;
        let deadline = Instant::now() + OBSERVE_TIMEOUT;
        let rooms = timeout_at(deadline, self.list_rooms(&sessions)).await.ok().flatten();
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        for claim in sessions {
            // Most sessions are idle and need no call to LiveKit of their own.
            match next_step_isolated(&claim, rooms.as_ref(), at) {
                Some(Step::Reschedule(next_check_at)) => idle.push((claim, next_check_at)),
                Some(step) => busy.push((claim, step, permits.split(1))),
                None => {}
            }
        }
        drop(permits);
        let reconciled = busy.into_iter().map(|(claim, step, permit)| async move {
            let idle_check = self.reconcile_isolated(claim, step, at, deadline).await;
            drop(permit);
            idle_check
        });
        let reconciled = stream::iter(reconciled).buffer_unordered(OBSERVE_CONCURRENCY);
        let mut reconciled = std::pin::pin!(reconciled);
        // Spawn the writes instead of awaiting them here: a session that is not polled keeps its
        // permit.
        let mut writes = JoinSet::new();
        loop {
            match timeout(RESCHEDULE_DELAY, reconciled.next()).await {
                Ok(Some(idle_check)) => idle.extend(idle_check),
                Ok(None) => break,
                Err(_) => self.spawn_reschedule(&mut idle, &mut writes),
            }
        }
        self.spawn_reschedule(&mut idle, &mut writes);
        while writes.join_next().await.is_some() {}
    }

    /// Reconciles one session of a batch. An error or a panic is logged and does not affect the
    /// other sessions; the session is claimed again when its lease expires.
    async fn reconcile_isolated(
        &self,
        claim: Claim,
        step: Step,
        at: DateTime<Utc>,
        deadline: Instant,
    ) -> Option<IdleCheck> {
        let id = claim.id;
        let reconcile = self.reconcile(claim, step, at, deadline);
        match AssertUnwindSafe(reconcile).catch_unwind().await {
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

    async fn reconcile(
        &self,
        claim: Claim,
        step: Step,
        at: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<Option<IdleCheck>, Error> {
        let decision = match step {
            Step::Reschedule(next_check_at) => return Ok(Some((claim, next_check_at))),
            Step::Apply(decision) => *decision,
            Step::Observe(sid) => {
                let observation = timeout_at(deadline, self.observe_room(&claim, sid)).await;
                let observation = observation.ok().flatten();
                let decision = decide(&claim.session, observation.as_ref(), at);
                if changes_nothing(&claim, &decision) {
                    return Ok(Some((claim, decision.state.next_check_at)));
                }
                decision
            }
        };
        self.apply(claim, &decision).await?;
        Ok(None)
    }

    /// Commits a decision, then executes its actions.
    async fn apply(&self, claim: Claim, decision: &Decision) -> Result<(), Error> {
        let mut written = claim.clone();
        let commit = async |db: &mut _| Ok((written.commit(db, decision).await?, written));
        let (committed, written) = self.shared.database.run_for_keeper(commit).await?;
        if !committed {
            // Another writer changed the session: discard the observation and repeat it.
            self.release(&claim).await?;
            self.shared.due.notify_one();
            return Ok(());
        }
        self.shared.waiters.wake();
        if !decision.actions.is_empty() {
            self.act(&written, &decision.actions, &decision.state).await;
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
fn next_step_isolated(claim: &Claim, rooms: Option<&RoomList>, at: DateTime<Utc>) -> Option<Step> {
    let step = std::panic::catch_unwind(AssertUnwindSafe(|| next_step(claim, rooms, at)));
    step.inspect_err(|_| {
        tracing::error!(session_id = %claim.id, "panicked while reconciling session");
    })
    .ok()
}

/// Decides by the list of rooms, if that is sufficient: the room does not exist, or the session is
/// over and only the existence of its room matters. `None` means that LiveKit returned no list.
fn next_step(claim: &Claim, rooms: Option<&RoomList>, at: DateTime<Utc>) -> Step {
    let observation = match rooms.map(|rooms| rooms.get(&claim.room_name)) {
        Some(Some(Ok(sid))) if !claim.session.state.is_over() => {
            return Step::Observe(sid.clone());
        }
        Some(Some(Ok(sid))) => {
            Some(Observation { room: Some(sid.clone()), ..Observation::default() })
        }
        Some(None) => Some(Observation::default()),
        Some(Some(Err(_))) | None => None,
    };
    let decision = decide(&claim.session, observation.as_ref(), at);
    if changes_nothing(claim, &decision) {
        Step::Reschedule(decision.state.next_check_at)
    } else {
        Step::Apply(Box::new(decision))
    }
}

/// Returns the claims, or an empty batch after an error. Of several errors in a row only the first
/// is logged, because the keeper retries four times per second.
fn claims_or_empty(claims: Result<ClaimBatch, Error>, is_failing: &mut bool) -> ClaimBatch {
    if let (Err(error), false) = (&claims, *is_failing) {
        tracing::warn!(error = error as &dyn std::error::Error, "failed to claim due sessions");
    }
    *is_failing = claims.is_err();
    claims.unwrap_or_default()
}

/// Waits for the permits of a claim: at least [`MIN_BATCH`], at most [`MAX_BATCH`]. `None` means
/// that the semaphore is closed.
async fn acquire_permits(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let mut permits = semaphore.clone().acquire_many_owned(MIN_BATCH).await.ok()?;
    let more = u32::try_from(semaphore.available_permits())
        .map_or(0, |available| available.min(MAX_BATCH - MIN_BATCH));
    if let Ok(more) = semaphore.clone().try_acquire_many_owned(more) {
        permits.merge(more);
    }
    Some(permits)
}

/// Whether a decision changes nothing but the time of the next check.
fn changes_nothing(claim: &Claim, decision: &Decision) -> bool {
    let mut before = claim.session.state.clone();
    before.next_check_at = decision.state.next_check_at;
    decision.actions.is_empty() && decision.events.is_empty() && before == decision.state
}
