//! Admission to the connection pool: each kind of work has its own share of the connections and its
//! own bounded queue (the bulkhead pattern), so that overload by one kind does not stop the others.

use std::sync::Arc;
use std::time::Duration;

use greenroom_domain::PoolSize;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::Error;

/// Smallest pool that is divided. In a smaller one, all work shares all connections.
const MIN_DIVIDED_POOL: usize = 4;

/// Time after which a queue that has never been empty is sustained overload and not a burst.
const BURST_DURATION: Duration = Duration::from_millis(100);

/// Duration of work that is assumed until the first work has finished.
const INITIAL_WORK_TIME: Duration = Duration::from_millis(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The insert of a start. Refused at once if it would wait longer than a user notices.
    Start,
    /// An insert that the queue of starts has admitted, or a later statement of a start. Never refused
    /// because of its wait, because the session is
    /// already committed or the caller is owed an explanation.
    StartStep,
    /// The keeper, which limits its own concurrency.
    Keeper,
    /// A webhook. LiveKit sends it again after a refusal.
    Webhook,
    /// Any other request.
    Request,
    /// Reads of requests that their queue has admitted. Never refused because of their wait.
    RequestStep,
}

/// Maximum expected wait for a connection. Work that would wait longer is refused at once.
pub(crate) struct MaxWait {
    /// While the queue has only just begun: many clients at once, who are all served soon.
    burst: Duration,
    /// While more work arrives than is done. A long queue would then delay all work without serving
    /// more of it (the idea of `CoDel`, RFC 8289).
    sustained: Duration,
}

impl MaxWait {
    /// The maximum for work whose queue was last empty at `queued_since`; `None` means that it is
    /// empty.
    pub(crate) fn since(&self, queued_since: Option<Instant>) -> Duration {
        let is_burst = queued_since.is_none_or(|since| since.elapsed() < BURST_DURATION);
        if is_burst { self.burst } else { self.sustained }
    }
}

impl Work {
    /// Time that must be left for the work itself. Without it, a caller would wait for a connection
    /// and then time out with a statement in progress.
    pub(crate) fn min_work_time(self) -> Duration {
        match self {
            // Its deadline leaves little time after a slow response of LiveKit.
            Self::StartStep => Duration::from_millis(200),
            Self::Start | Self::Keeper | Self::Webhook | Self::Request | Self::RequestStep => {
                Duration::from_secs(1)
            }
        }
    }

    /// `None` means that the work is queued whatever its wait.
    pub(crate) fn max_wait(self) -> Option<MaxWait> {
        let milliseconds = |burst, sustained| MaxWait {
            burst: Duration::from_millis(burst),
            sustained: Duration::from_millis(sustained),
        };
        match self {
            Self::Start => Some(milliseconds(2_000, 150)),
            Self::Webhook | Self::Request => Some(milliseconds(2_000, 500)),
            Self::StartStep | Self::Keeper | Self::RequestStep => None,
        }
    }
}

/// Divides the connections of a pool among the kinds of work.
pub(crate) struct Bulkheads {
    starts: Arc<Share>,
    background: Arc<Share>,
    requests: Arc<Share>,
    /// Connections that any work may use.
    unreserved: Arc<Semaphore>,
    /// The keeper uses at most half of the pool, and its backlog waits here and not in the queue of
    /// the webhooks.
    keeper: Arc<Semaphore>,
}

/// The connections of one kind of work, and its load.
struct Share {
    reserved: Arc<Semaphore>,
    load: Mutex<Load>,
}

struct Load {
    running: u32,
    waiting: u32,
    /// Since when work has been waiting without a break. `None` while the queue is empty.
    queued_since: Option<Instant>,
    /// Moving average of the time for which work keeps its connection.
    work_time: Duration,
    /// The connections that this share has recently used, times [`USAGE_SCALE`]. Rises at once with
    /// `running`, and falls slowly as work ends. `running` itself is too low for an estimate: after a
    /// group commit, many permits are free until the waiting work begins.
    recent_use: u32,
}

/// Fixed-point scale of [`Load::recent_use`], and the number of pieces of work over which it falls.
const USAGE_SCALE: u32 = 32;

impl Load {
    fn begin(&mut self) {
        self.running += 1;
        self.recent_use = self.recent_use.max(self.running * USAGE_SCALE);
    }

    fn finish(&mut self) {
        self.recent_use = self.recent_use - self.recent_use / USAGE_SCALE + self.running;
        self.running -= 1;
    }
}

/// The right to use one connection. Dropping it ends the work.
pub(crate) struct Permit {
    _connection: OwnedSemaphorePermit,
    _keeper: Option<OwnedSemaphorePermit>,
    share: Arc<Share>,
    begun: Instant,
    /// Whether the time of this work has been counted.
    is_counted: bool,
}

/// A place in the queue of a share.
struct Waiting<'a>(&'a Share);

impl Bulkheads {
    /// Reserves a fifth of the pool for starts, a tenth for the keeper and webhooks, and a tenth for
    /// other requests. Any work may use the rest: a larger reserve would slow down the others even
    /// while it is idle.
    pub(crate) fn new(pool: PoolSize) -> Self {
        let size = usize::from(pool.get());
        let share = |numerator: usize, denominator: usize| (size * numerator / denominator).max(1);
        let keeper = Arc::new(Semaphore::new((size / 2).max(1)));
        if size < MIN_DIVIDED_POOL {
            let all = Share::new(0);
            let (starts, background, requests) = (all.clone(), all.clone(), all);
            return Self {
                starts,
                background,
                requests,
                unreserved: Arc::new(Semaphore::new(size)),
                keeper,
            };
        }
        let (starts, background, requests) = (share(1, 5), share(1, 10), share(1, 10));
        Self {
            keeper,
            starts: Share::new(starts),
            background: Share::new(background),
            requests: Share::new(requests),
            unreserved: Arc::new(Semaphore::new(size - starts - background - requests)),
        }
    }

    fn share(&self, work: Work) -> &Arc<Share> {
        match work {
            Work::Start | Work::StartStep => &self.starts,
            Work::Keeper | Work::Webhook => &self.background,
            Work::Request | Work::RequestStep => &self.requests,
        }
    }

    /// Waits for the right to use a connection.
    ///
    /// # Errors
    /// Returns [`Error::Overloaded`] at once if the wait would probably be too long, and later if it
    /// was, or if `deadline` leaves too little time for the work.
    pub(crate) async fn acquire(&self, work: Work, deadline: Instant) -> Result<Permit, Error> {
        let share = self.share(work);
        let mut give_up_at = deadline.checked_sub(work.min_work_time()).unwrap_or(deadline);
        let keeper = if work == Work::Keeper {
            let turn = timeout_at(give_up_at, self.keeper.clone().acquire_owned()).await;
            Some(turn.ok().and_then(Result::ok).ok_or(Error::Overloaded)?)
        } else {
            None
        };
        let (reserved, unreserved) = (&share.reserved, &self.unreserved);
        let free = reserved.clone().try_acquire_owned();
        if let Ok(connection) = free.or_else(|_| unreserved.clone().try_acquire_owned()) {
            return Ok(share.begin(connection, keeper));
        }
        if let Some(max_wait) = work.max_wait() {
            if share.would_exceed(&max_wait) {
                return Err(Error::Overloaded);
            }
            // The estimate may be wrong, for example when the database has just become slow.
            give_up_at = give_up_at.min(Instant::now() + max_wait.burst);
        }
        let _waiting = share.enqueue();
        let connection = async {
            tokio::select! {
                connection = reserved.clone().acquire_owned() => connection,
                connection = unreserved.clone().acquire_owned() => connection,
            }
        };
        match timeout_at(give_up_at, connection).await {
            Ok(Ok(connection)) => Ok(share.begin(connection, keeper)),
            _ => Err(Error::Overloaded),
        }
    }
}

impl Share {
    fn new(reserved: usize) -> Arc<Self> {
        let load = Load {
            running: 0,
            waiting: 0,
            queued_since: None,
            work_time: INITIAL_WORK_TIME,
            recent_use: 0,
        };
        Arc::new(Self { reserved: Arc::new(Semaphore::new(reserved)), load: Mutex::new(load) })
    }

    /// Whether work that is queued now would probably wait too long. Its wait is the work before it,
    /// divided by the connections that this share has recently used.
    fn would_exceed(&self, max_wait: &MaxWait) -> bool {
        let load = self.load.lock();
        let wait =
            load.work_time * (load.waiting + 1) * USAGE_SCALE / load.recent_use.max(USAGE_SCALE);
        wait > max_wait.since(load.queued_since)
    }

    fn enqueue(&self) -> Waiting<'_> {
        let mut load = self.load.lock();
        load.waiting += 1;
        load.queued_since.get_or_insert_with(Instant::now);
        Waiting(self)
    }

    fn begin(
        self: &Arc<Self>,
        connection: OwnedSemaphorePermit,
        keeper: Option<OwnedSemaphorePermit>,
    ) -> Permit {
        self.load.lock().begin();
        Permit {
            _connection: connection,
            _keeper: keeper,
            share: self.clone(),
            begun: Instant::now(),
            is_counted: false,
        }
    }
}

impl Permit {
    /// Begins the time of the work, once its connection is open. Opening the first connections takes
    /// much longer than the work, and says nothing about the work that waits.
    pub(crate) fn begin_work(&mut self) {
        self.begun = Instant::now();
    }

    /// Counts the time of work that was abandoned. The time in which PostgreSQL then settles it says
    /// nothing about the next work.
    pub(crate) fn count_abandoned(&mut self) {
        self.count(self.begun.elapsed());
    }

    /// Counts the time of finished work, as at most four times the average: the average follows a
    /// database that has become slow, and hardly changes with a single stall.
    fn count_finished(&mut self) {
        let average = self.share.load.lock().work_time;
        self.count(self.begun.elapsed().min((average * 4).max(INITIAL_WORK_TIME)));
    }

    fn count(&mut self, time: Duration) {
        if !std::mem::replace(&mut self.is_counted, true) {
            let mut load = self.share.load.lock();
            load.work_time = (load.work_time * 31 + time) / 32;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut load = self.0.load.lock();
        load.waiting -= 1;
        if load.waiting == 0 {
            load.queued_since = None;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.count_finished();
        self.share.load.lock().finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn acquire_all(bulkheads: &Bulkheads, work: Work) -> Vec<Permit> {
        let mut permits = Vec::new();
        let deadline = Instant::now() + work.min_work_time();
        while let Ok(permit) = bulkheads.acquire(work, deadline).await {
            permits.push(permit);
        }
        permits
    }

    #[tokio::test(start_paused = true)]
    async fn one_kind_of_work_leaves_the_reserved_connections_of_the_others() {
        for work in [Work::Start, Work::StartStep, Work::Keeper, Work::Webhook, Work::Request] {
            let bulkheads = Bulkheads::new(PoolSize::constant::<10>());
            let permits = acquire_all(&bulkheads, work).await;
            assert!((5..=8).contains(&permits.len()), "{work:?}: {}", permits.len());
            for other in [Work::Start, Work::Keeper, Work::Request] {
                let is_free = bulkheads.acquire(other, soon()).await.is_ok();
                let is_same = Arc::ptr_eq(bulkheads.share(other), bulkheads.share(work));
                assert_eq!(is_free, !is_same, "{other:?} beside {work:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_work_shares_a_small_pool() {
        for size in [PoolSize::constant::<2>(), PoolSize::constant::<3>()] {
            let bulkheads = Bulkheads::new(size);
            let keeper = acquire_all(&bulkheads, Work::Keeper).await;
            assert_eq!(keeper.len(), 1, "half of the pool");
            let starts = acquire_all(&bulkheads, Work::Start).await;
            assert_eq!(starts.len(), usize::from(size.get()) - 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_would_wait_too_long_is_refused_at_once() {
        let bulkheads = Bulkheads::new(PoolSize::constant::<10>());
        let mut permits = acquire_all(&bulkheads, Work::Start).await;
        tokio::time::sleep(Duration::from_mins(10)).await;
        permits.iter_mut().for_each(Permit::count_abandoned);
        drop(permits);
        let _permits = acquire_all(&bulkheads, Work::Start).await;
        let begun = Instant::now();
        assert!(bulkheads.acquire(Work::Start, soon()).await.is_err());
        assert!(begun.elapsed() < Duration::from_millis(1), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn burst_is_queued_and_sustained_overload_is_not() {
        let bulkheads = Arc::new(Bulkheads::new(PoolSize::constant::<10>()));
        let _permits = acquire_all(&bulkheads, Work::Start).await;
        let refused_of = async |count: u32| {
            let mut queued = tokio::task::JoinSet::new();
            for _ in 0..count {
                let bulkheads = bulkheads.clone();
                queued.spawn(async move {
                    let begun = Instant::now();
                    let refused = bulkheads.acquire(Work::Start, soon()).await.is_err();
                    refused && begun.elapsed() < Duration::from_millis(1)
                });
            }
            tokio::time::sleep(BURST_DURATION).await;
            let mut refused = 0;
            while let Some(Ok(at_once)) = queued.try_join_next() {
                refused += u32::from(at_once);
            }
            queued.detach_all();
            refused
        };
        // Each takes 5 ms on seven connections: 400 wait at most 286 ms.
        assert_eq!(refused_of(400).await, 0);
        assert_eq!(refused_of(400).await, 400);
    }

    /// As when PostgreSQL writes a checkpoint: 64 clients wait, and all work takes a second once.
    #[tokio::test(start_paused = true)]
    async fn one_stall_refuses_no_client() {
        let bulkheads = Bulkheads::new(PoolSize::constant::<10>());
        let permits = acquire_all(&bulkheads, Work::Start).await;
        let queue: Vec<_> = (permits.len()..64).map(|_| bulkheads.starts.enqueue()).collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(permits);
        let _permits = acquire_all(&bulkheads, Work::StartStep).await;
        let max_wait = Work::Start.max_wait().unwrap();
        assert!(!bulkheads.starts.would_exceed(&max_wait), "{} clients wait", queue.len());
    }

    /// As when PostgreSQL commits several transactions together: 16 clients never wait long.
    #[tokio::test(start_paused = true)]
    async fn work_that_ends_at_the_same_moment_refuses_no_client() {
        let bulkheads = Bulkheads::new(PoolSize::constant::<10>());
        let max_wait = Work::Start.max_wait().unwrap();
        for _ in 0..100 {
            let permits = acquire_all(&bulkheads, Work::Start).await;
            let queue: Vec<_> = (permits.len()..16).map(|_| bulkheads.starts.enqueue()).collect();
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(permits);
            // The clients that waited have a connection each, but have not begun.
            bulkheads.starts.load.lock().queued_since = Some(Instant::now() - BURST_DURATION);
            assert!(!bulkheads.starts.would_exceed(&max_wait), "{} clients wait", queue.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_while_enough_time_is_left_for_the_work() {
        let bulkheads = Bulkheads::new(PoolSize::constant::<10>());
        let _permits = acquire_all(&bulkheads, Work::StartStep).await;
        let begun = Instant::now();
        assert!(bulkheads.acquire(Work::StartStep, soon()).await.is_err());
        assert_eq!(begun.elapsed(), Duration::from_millis(4_800));
    }

    #[tokio::test(start_paused = true)]
    async fn queued_work_gets_the_next_free_connection() {
        let bulkheads = Bulkheads::new(PoolSize::constant::<10>());
        let mut permits = acquire_all(&bulkheads, Work::Keeper).await;
        let (queued, ()) = tokio::join!(bulkheads.acquire(Work::Keeper, soon()), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            permits.pop();
        });
        assert!(queued.is_ok());
    }
}
