//! Limits of calls to LiveKit: concurrent calls, and calls per minute.

use std::time::Duration;

use greenroom_domain::{CallsInFlight, CallsPerMinute};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_mins(1);

/// The share of the calls per minute that is reserved for sessions in progress and for starts.
const RESERVED_SHARE: f64 = 0.25;

/// Limits the calls to LiveKit.
pub(crate) struct LiveKitLimiter {
    in_flight: Semaphore,
    /// The keeper uses at most three quarters of the concurrent calls, so that starts get a permit
    /// even if LiveKit responds to the keeper slowly.
    keeper_permits: Semaphore,
    /// Concurrent lists of dispatches on which a decision depends: a quarter of all calls.
    required_list_permits: Semaphore,
    /// Concurrent lists of dispatches that only show whether a node is gone: a quarter of all calls.
    occasional_list_permits: Semaphore,
    budget: Option<Mutex<Budget>>,
}

/// The permits of one call of the keeper. Drop them after the call.
pub(crate) struct KeeperPermits<'a> {
    _list: Option<SemaphorePermit<'a>>,
    _keeper: Option<SemaphorePermit<'a>>,
    _call: Option<SemaphorePermit<'a>>,
}

/// A token bucket that holds this process's share of the calls of one minute and refills evenly.
struct Budget {
    per_minute: f64,
    share: f64,
    remaining: f64,
    refilled_at: Instant,
}

impl LiveKitLimiter {
    pub(crate) fn new(max_in_flight: CallsInFlight, per_minute: Option<CallsPerMinute>) -> Self {
        let max_in_flight = usize::from(max_in_flight.get());
        let share = |numerator: usize| Semaphore::new((max_in_flight * numerator / 4).max(1));
        Self {
            in_flight: Semaphore::new(max_in_flight),
            keeper_permits: share(3),
            required_list_permits: share(1),
            occasional_list_permits: share(1),
            budget: per_minute.map(|calls| Mutex::new(Budget::new(calls))),
        }
    }

    /// Waits for the permit of one concurrent call. The call counts against the calls per minute
    /// but never waits for them: when they run low, the keeper checks fewer sessions instead.
    pub(crate) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.spend();
        self.in_flight.acquire().await.ok()
    }

    /// Waits for the permits of one concurrent call of the keeper.
    pub(crate) async fn acquire_for_keeper(&self) -> KeeperPermits<'_> {
        self.acquire_with(None).await
    }

    /// Waits for the permits of a required list of dispatches: at most a quarter of all calls.
    ///
    /// `ListDispatch` takes three seconds if the room's node is gone. Its own limits keep a dead
    /// node from delaying the keeper's other calls, and occasional lists from delaying an agent.
    pub(crate) async fn acquire_for_required_list(&self) -> KeeperPermits<'_> {
        self.acquire_with(self.required_list_permits.acquire().await.ok()).await
    }

    /// Returns the permits of an occasional list of dispatches, or `None` if as many as are
    /// permitted are in progress.
    pub(crate) async fn try_acquire_for_occasional_list(&self) -> Option<KeeperPermits<'_>> {
        let list = self.occasional_list_permits.try_acquire().ok()?;
        Some(self.acquire_with(Some(list)).await)
    }

    async fn acquire_with<'a>(&'a self, list: Option<SemaphorePermit<'a>>) -> KeeperPermits<'a> {
        let keeper = self.keeper_permits.acquire().await.ok();
        KeeperPermits { _list: list, _keeper: keeper, _call: self.acquire().await }
    }

    fn spend(&self) {
        if let Some(budget) = &self.budget {
            budget.lock().spend(Instant::now());
        }
    }

    /// Returns whether the calls per minute run low, so that only sessions in progress are checked.
    /// `replicas` processes share the calls evenly.
    pub(crate) fn are_calls_scarce(&self, replicas: usize) -> bool {
        let Some(budget) = &self.budget else { return false };
        let mut budget = budget.lock();
        budget.refill(Instant::now());
        budget.set_replicas(replicas);
        budget.remaining <= budget.share * RESERVED_SHARE
    }
}

impl Budget {
    fn new(per_minute: CallsPerMinute) -> Self {
        let per_minute = f64::from(per_minute.get());
        let refilled_at = Instant::now();
        Self { per_minute, share: per_minute, remaining: per_minute, refilled_at }
    }

    fn set_replicas(&mut self, replicas: usize) {
        self.share =
            self.per_minute / f64::from(u32::try_from(replicas).unwrap_or(u32::MAX).max(1));
        self.remaining = self.remaining.min(self.share);
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        let refilled = self.remaining + self.share * elapsed / MINUTE.as_secs_f64();
        self.remaining = refilled.min(self.share);
        self.refilled_at = now;
    }

    /// Counts one call. The budget can become negative, because no call is refused. The refill then
    /// pays for the overdrawn calls first.
    fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.remaining -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_scarce_when_a_quarter_of_the_share_is_left() {
        let in_flight = CallsInFlight::constant::<8>();
        let limiter = LiveKitLimiter::new(in_flight, Some(CallsPerMinute::constant::<100>()));
        assert!(!limiter.are_calls_scarce(1));
        for _ in 0..60 {
            limiter.spend();
        }
        assert!(!limiter.are_calls_scarce(1));
        for _ in 0..20 {
            limiter.spend();
        }
        assert!(limiter.are_calls_scarce(1));
        assert!(!LiveKitLimiter::new(in_flight, None).are_calls_scarce(1));

        let limiter = LiveKitLimiter::new(in_flight, Some(CallsPerMinute::constant::<100>()));
        assert!(!limiter.are_calls_scarce(2));
        for _ in 0..40 {
            limiter.spend();
        }
        assert!(limiter.are_calls_scarce(2), "the share is 50 calls");
    }

    #[test]
    fn budget_refills_evenly_up_to_its_capacity() {
        let mut budget = Budget::new(CallsPerMinute::constant::<60>());
        let start = budget.refilled_at;
        for _ in 0..70 {
            budget.spend(start);
        }
        assert!((budget.remaining + 10.0).abs() < 0.001, "the budget is overdrawn by 10 calls");
        budget.refill(start + Duration::from_secs(30));
        assert!((budget.remaining - 20.0).abs() < 0.001);
        budget.refill(start + Duration::from_hours(1));
        assert!((budget.remaining - 60.0).abs() < 0.001);
    }
}
