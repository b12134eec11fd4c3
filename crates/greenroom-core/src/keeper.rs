//! The keeper: a loop that checks sessions. It observes them in LiveKit and applies decisions.
//!
//! The order of the steps makes the keeper safe: read, observe, decide, commit the decision, act. If
//! a process dies at any point, an observation or an action is repeated, but never skipped. Each
//! session belongs to a bucket, which one process holds at a time; if two processes observe the same
//! session nevertheless, only one of them commits. Dispatching an agent cannot be repeated safely:
//! the keeper dispatches an agent only after an observation without a pending agent, and only after
//! it recorded the dispatch.

mod act;
mod batch;
mod breaker;
mod buckets;
mod check;
mod deadlines;
mod failures;
mod observe;
mod remembered;
mod resync;
mod room_nodes;
mod schedule;
mod search;
mod step;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use greenroom_store::due::{due_sessions, neglected_sessions};
use greenroom_store::{DueSearch, HeldBuckets, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use self::failures::{FailureLog, caught};
use self::schedule::CheckGuard;
use self::search::{SEARCH_INTERVAL, SearchPlan};
use crate::clock::replica_id;
use crate::{Error, Greenroom};

pub(crate) use self::breaker::Breaker;
pub(crate) use self::buckets::Buckets;
pub(crate) use self::room_nodes::RoomNodes;
pub(crate) use self::schedule::Schedule;

/// Minimum time between two batches, unless one was full. Facts that this process records in quick
/// succession are then checked together.
const MIN_BATCH_INTERVAL: Duration = Duration::from_millis(25);

/// Maximum number of neglected sessions per batch. All processes find the same ones.
const MAX_NEGLECTED: usize = 32;

/// Maximum number of sessions per batch. One call to LiveKit lists the rooms of a whole batch.
const MAX_BATCH: u32 = 256;

/// Maximum number of sessions that are checked at once. Sessions that become due meanwhile wait.
/// While LiveKit does not respond, each check takes seconds; 512 sessions are still enough to use
/// all concurrent calls that `LIVEKIT_MAX_IN_FLIGHT` allows by default.
const MAX_IN_PROGRESS: usize = 512;

/// Time that the checks in progress have to finish before a process that stops releases its buckets.
const STOP_DELAY: Duration = Duration::from_secs(2);

/// Minimum number of free permits for a batch, because many small batches would be many queries.
const MIN_BATCH: u32 = 32;

impl Greenroom {
    /// Reconciles sessions with LiveKit until `stop` completes.
    ///
    /// The keeper then begins no more checks, finishes those in progress, and returns. Any number of
    /// processes can run a keeper on the same database: they share the sessions evenly, and a
    /// process that stops renewing its lease loses its share after
    /// [`BUCKET_LEASE`](greenroom_store::bucket::BUCKET_LEASE). A panic while a session is checked is
    /// logged, and the keeper continues. A process runs one keeper at a time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the work in progress. No session is lost: after the lease, any
    /// other keeper checks the sessions.
    pub async fn run_keeper(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let replica = replica_id();
        // A `JoinSet` aborts its tasks if this future is dropped.
        let mut background = self.spawn_background_work(replica);
        let semaphore = Arc::new(Semaphore::new(MAX_IN_PROGRESS));
        let (mut batches, mut plan) = (JoinSet::new(), SearchPlan::new());
        let mut failures = FailureLog::new("failed to find due sessions");
        loop {
            while batches.try_join_next().is_some() {}
            let permits = unless_stopped(stop.as_mut(), self.acquire_permits(&semaphore)).await;
            let Some(permits) = permits.flatten() else { break };
            let held = self.shared.buckets.held();
            let search = plan.begin_batch(&held);
            let begun = caught(self.begin_checks(&held, permits.num_permits(), search)).await;
            let begun = failures.value(begun);
            plan.end_batch(begun.as_ref().map(|begun| begun.is_search_full));
            let begun = begun.unwrap_or_default();
            let is_full = begun.is_full;
            self.spawn_batch(&mut batches, begun.guards, held, permits);
            let pause = self.pause_between_batches(is_full, plan.next_at());
            match unless_stopped(stop.as_mut(), pause).await {
                Some(true) => plan.search_next(),
                Some(false) => {}
                None => break,
            }
        }
        background.shutdown().await;
        self.shared.buckets.stop_remembering();
        // The other processes take over soon, even if LiveKit or PostgreSQL is slow: then what is
        // still in progress is not committed any more.
        let finished = async { while batches.join_next().await.is_some() {} };
        drop(timeout(STOP_DELAY, finished).await);
        self.unregister(replica).await;
        while batches.join_next().await.is_some() {}
    }

    /// Waits until this process may check, and for the permits of a batch: at least [`MIN_BATCH`], at
    /// most [`MAX_BATCH`]. `None` means that the semaphore is closed.
    async fn acquire_permits(&self, semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        self.wait_until_rooms_are_listed().await;
        let mut permits = semaphore.clone().acquire_many_owned(MIN_BATCH).await.ok()?;
        let more = u32::try_from(semaphore.available_permits())
            .map_or(0, |available| available.min(MAX_BATCH - MIN_BATCH));
        if let Ok(more) = semaphore.clone().try_acquire_many_owned(more) {
            permits.merge(more);
        }
        Some(permits)
    }

    /// Spawns the checks of a batch.
    fn spawn_batch(
        &self,
        batches: &mut JoinSet<()>,
        guards: Vec<CheckGuard>,
        held: Arc<HeldBuckets>,
        mut permits: OwnedSemaphorePermit,
    ) {
        if guards.is_empty() {
            return;
        }
        // Keep one permit per session and release the rest now, so that a few slow sessions cannot
        // block further batches.
        if let Some(permits) = permits.split(guards.len()) {
            let greenroom = self.clone();
            let check = async move { greenroom.check_batch(guards, &held, permits).await };
            batches.spawn(check.in_current_span());
        }
    }

    /// Spawns the work that runs beside the checks. Dropping the set aborts it.
    fn spawn_background_work(&self, replica: ReplicaId) -> JoinSet<()> {
        let mut background = JoinSet::new();
        let greenroom = self.clone();
        background.spawn(async move { greenroom.run_retention().await });
        let greenroom = self.clone();
        background.spawn(async move { greenroom.enforce_deadlines().await });
        let greenroom = self.clone();
        background.spawn(async move { greenroom.hold_buckets(replica).await });
        let greenroom = self.clone();
        background.spawn(async move { greenroom.resync_sessions().await });
        background
    }

    /// Waits before the next batch. A full batch is followed by the next one at once, because more
    /// sessions are probably due. In the first reconciliation interval after an outage, all sessions
    /// are due: the pause then grows with the number of replicas, so that all of them together check
    /// at most [`MAX_BATCH`] sessions per interval. Returns whether the next batch needs a search.
    async fn pause_between_batches(&self, is_full: bool, next_search: Instant) -> bool {
        let is_recent = self.shared.breaker.recovered_within(self.shared.reconcile_interval());
        let replicas = u32::try_from(self.shared.buckets.replicas()).unwrap_or(u32::MAX);
        match (is_full, is_recent) {
            (true, true) => {
                sleep(SEARCH_INTERVAL.saturating_mul(replicas)).await;
                return false;
            }
            (true, false) => return false,
            (false, _) => {
                sleep(MIN_BATCH_INTERVAL).await;
                tokio::select! {
                    () = self.shared.search_requested.notified() => {}
                    () = self.shared.schedule.is_due.notified() => return false,
                    () = sleep_until(next_search) => {}
                }
            }
        }
        true
    }

    /// Begins the checks of due sessions. With a `search`: first those that are due in PostgreSQL,
    /// because of a deadline or a fact of another process, then those that are due in memory, which
    /// keep a quarter of the batch, and last the neglected sessions of other processes. Without one,
    /// only those that are due in memory.
    async fn begin_checks(
        &self,
        held: &HeldBuckets,
        limit: usize,
        search: Option<DueSearch>,
    ) -> Result<Begun, Error> {
        if held.is_empty() {
            return Ok(Begun::default());
        }
        let schedule = &self.shared.schedule;
        if self.shared.are_calls_scarce() {
            schedule.postpone_idle(self.shared.reconcile_interval());
        }
        let Some(search) = search else {
            let guards = schedule.begin_waiting(limit, held);
            return Ok(Begun { is_full: guards.len() == limit, is_search_full: false, guards });
        };
        let with_skipped = limit + schedule.max_skipped();
        let has_others = self.shared.buckets.replicas() > 1;
        let find = async |db: &mut _| {
            let due = due_sessions(db, held, with_skipped, search).await?;
            let neglected = if has_others && due.len() < limit {
                neglected_sessions(db, held, MAX_NEGLECTED, search.range).await?
            } else {
                Vec::new()
            };
            Ok((due, neglected))
        };
        let (due, neglected) = self.shared.database.run_for_keeper(find).await?;
        let limit_of_due = if schedule.has_due() { limit - limit / 4 } else { limit };
        let mut guards = schedule.begin_found(due, limit_of_due);
        let is_due_full = guards.len() == limit_of_due;
        guards.extend(schedule.begin_waiting(limit - guards.len(), held));
        let neglected = schedule.begin_found(neglected, limit - guards.len());
        // Those that are being checked do not count: a search at once would only find them again.
        let is_search_full = is_due_full || neglected.len() == MAX_NEGLECTED;
        guards.extend(neglected);
        let is_full = is_search_full || guards.len() == limit;
        Ok(Begun { guards, is_full, is_search_full })
    }
}

/// The checks that were begun together.
#[derive(Default)]
struct Begun {
    guards: Vec<CheckGuard>,
    /// Whether more sessions are probably due, in PostgreSQL or in memory.
    is_full: bool,
    /// Whether more sessions are probably due in PostgreSQL.
    is_search_full: bool,
}

/// Returns the output of `work`, or `None` if `stop` completes first.
async fn unless_stopped<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        () = stop => None,
        output = work => Some(output),
    }
}
