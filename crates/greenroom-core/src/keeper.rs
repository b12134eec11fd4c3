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
mod search_range;
mod step;

use std::sync::Arc;
use std::time::Duration;

use greenroom_store::due::{due_sessions, neglected_sessions};
use greenroom_store::{DueOrder, DueSearch, HeldBuckets, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use self::failures::{FailureLog, caught};
use self::schedule::CheckGuard;
use self::search_range::RangeSelector;
use crate::clock::replica_id;
use crate::{Error, Greenroom};

pub(crate) use self::breaker::Breaker;
pub(crate) use self::buckets::Buckets;
pub(crate) use self::room_nodes::RoomNodes;
pub(crate) use self::schedule::Schedule;

/// Interval between two searches for due sessions. A fact that another process records waits at most
/// this long. A full search, or a session that this process makes due in PostgreSQL, starts the next
/// search earlier.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

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
        let mut stop = std::pin::pin!(stop);
        let replica = replica_id();
        // A `JoinSet` aborts its tasks if this future is dropped.
        let mut background = self.spawn_background_work(replica);
        let semaphore = Arc::new(Semaphore::new(MAX_IN_PROGRESS));
        let mut batches = JoinSet::new();
        let mut order = DueOrder::OldestFirst;
        let mut next_search = Instant::now();
        let (mut ranges, mut searched) = (RangeSelector::default(), Arc::default());
        let mut failures = FailureLog::new("failed to find due sessions");
        loop {
            while batches.try_join_next().is_some() {}
            let permits = tokio::select! {
                () = &mut stop => None,
                permits = async {
                    self.wait_until_rooms_are_listed().await;
                    acquire_permits(&semaphore).await
                } => permits,
            };
            let Some(mut permits) = permits else { break };
            let limit = permits.num_permits();
            let held = self.shared.buckets.held();
            if !Arc::ptr_eq(&held, &searched) {
                // The sessions of new buckets may have been due for long.
                ranges.search_all_next();
                searched = held.clone();
            }
            let search = if next_search <= Instant::now() {
                next_search = Instant::now() + SEARCH_INTERVAL;
                Some(DueSearch { range: ranges.next_range(), order })
            } else {
                None
            };
            let begun = caught(self.begin_checks(&held, limit, search)).await;
            let Begun { guards, is_full, is_search_full } =
                failures.value(begun).unwrap_or_default();
            // After a full search, more sessions are probably due. Every second search then starts
            // with the sessions that became due last, so that a backlog, as after an outage, does
            // not delay users who are in a call.
            order = if is_search_full { order.toggled() } else { DueOrder::OldestFirst };
            if is_search_full {
                // A backlog may be older than the recent sessions.
                ranges.search_all_next();
                next_search = Instant::now();
            }
            // Keep one permit per session and release the rest now, so that a few slow sessions
            // cannot block further batches.
            if let Some(permits) = permits.split(guards.len()).filter(|_| !guards.is_empty()) {
                let greenroom = self.clone();
                let check = async move { greenroom.check_batch(guards, &held, permits).await };
                batches.spawn(check.in_current_span());
            }
            drop(permits);
            tokio::select! {
                () = &mut stop => break,
                needs_search = self.pause_between_batches(is_full, next_search) => {
                    if needs_search {
                        next_search = Instant::now();
                    }
                }
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
        let is_search_full = guards.len() == limit_of_due || neglected.len() == MAX_NEGLECTED;
        guards.extend(schedule.begin_waiting(limit - guards.len(), held));
        guards.extend(schedule.begin_found(neglected, limit - guards.len()));
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

/// Waits for the permits of a batch: at least [`MIN_BATCH`], at most [`MAX_BATCH`]. `None` means
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
