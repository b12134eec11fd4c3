//! The keeper: the loop that claims due sessions, observes them in LiveKit and applies decisions.
//!
//! The order of the steps makes the keeper safe: claim, observe, decide, commit the decision, act.
//! If a process dies at any point, an observation or an action is repeated, but never skipped. If
//! two processes observe the same session, only one of them commits. Dispatching an agent cannot be
//! repeated safely: the keeper dispatches an agent only after an observation without a pending
//! agent, and only after it recorded the dispatch.

mod act;
mod batch;
mod breaker;
mod deadlines;
mod observe;
mod room_nodes;

use std::sync::Arc;
use std::time::Duration;

use greenroom_store::{Claim, ClaimBatch, ClaimOrder, UnreadableSession};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use self::breaker::Recovery;
use crate::{Error, Greenroom};

pub(crate) use self::breaker::Breaker;
pub(crate) use self::room_nodes::RoomNodes;

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
    /// most [`CLAIM_LEASE`](greenroom_store::CLAIM_LEASE), and then any keeper claims the sessions again.
    pub async fn run_keeper(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        // A `JoinSet` aborts its tasks if this future is dropped.
        let mut background = self.spawn_background_work();
        let semaphore = Arc::new(Semaphore::new(MAX_CLAIMED));
        let mut batches = JoinSet::new();
        let mut order = ClaimOrder::OldestFirst;
        let mut is_failing = false;
        loop {
            while batches.try_join_next().is_some() {}
            let permits = tokio::select! {
                () = &mut stop => None,
                permits = self.permits_to_claim(&semaphore) => permits,
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
            tokio::select! {
                () = &mut stop => break,
                () = self.pause_between_claims(is_full) => {}
            }
        }
        while batches.join_next().await.is_some() {}
        background.abort_all();
    }

    /// Spawns the work that runs beside the checks: retention and deadlines. Dropping the set aborts
    /// it.
    fn spawn_background_work(&self) -> JoinSet<()> {
        let mut background = JoinSet::new();
        let greenroom = self.clone();
        background.spawn(async move { greenroom.run_retention().await });
        let greenroom = self.clone();
        background.spawn(async move { greenroom.enforce_deadlines().await });
        background
    }

    /// Waits until LiveKit lists rooms, and then for the permits of a claim. During an outage, a
    /// claim would only write leases.
    async fn permits_to_claim(&self, semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let breaker = &self.shared.breaker;
        while let Some(retry_at) = breaker.retry_at() {
            sleep_until(retry_at).await;
            let permits = self.shared.livekit.limiter.acquire_for_keeper().await;
            let began = Instant::now();
            let checked = self.shared.livekit.rooms.check().await;
            drop(permits);
            match checked {
                Ok(()) => {
                    if let Some(Recovery { outage, held }) = breaker.record_recovery() {
                        tracing::info!(seconds = outage.as_secs(), "recovered from LiveKit outage");
                        self.release_after_outage(held).await;
                    }
                }
                Err(_) => drop(breaker.record_failure(began)),
            }
        }
        acquire_permits(semaphore).await
    }

    /// Waits for the next claim. After a full claim, the next one follows at once, except within
    /// one reconciliation interval after an outage: all sessions are due then, and checking them at
    /// once would be a burst.
    async fn pause_between_claims(&self, is_full: bool) {
        let interval = self.shared.settings.policy.reconcile_every.get().unsigned_abs();
        let is_recent = self.shared.breaker.recovered_within(Duration::from_secs(interval.into()));
        match (is_full, is_recent) {
            (true, true) => sleep(CLAIM_INTERVAL).await,
            (true, false) => {}
            (false, _) => drop(timeout(CLAIM_INTERVAL, self.shared.due.notified()).await),
        }
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
}

/// Returns the claims, or an empty batch after an error. Of several errors in a row only the first
/// is logged, because the keeper retries four times per second.
fn claims_or_empty(claims: Result<ClaimBatch, Error>, is_failing: &mut bool) -> ClaimBatch {
    let is_first = is_first_failure(&claims, is_failing);
    if let (Err(error), true) = (&claims, is_first) {
        tracing::warn!(error = error as &dyn std::error::Error, "failed to claim due sessions");
    }
    claims.unwrap_or_default()
}

/// Returns whether this failure follows a success. Of several failures in a row, only the first is
/// logged.
fn is_first_failure<T>(result: &Result<T, Error>, is_failing: &mut bool) -> bool {
    let was_failing = std::mem::replace(is_failing, result.is_err());
    *is_failing && !was_failing
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
