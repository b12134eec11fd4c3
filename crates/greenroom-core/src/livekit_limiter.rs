//! How many calls to LiveKit are under way, and how many a minute there is room for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use greenroom_store::Urgency;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_mins(1);

/// The share of a minute's calls that is kept for what is under way.
const RESERVE: f64 = 0.25;

/// The bounds on calls to LiveKit.
pub(crate) struct LiveKitLimiter {
    in_flight: Semaphore,
    /// The keeper's share of them: a start always finds room, however slowly LiveKit answers looks.
    keeper_permits: Semaphore,
    budget: Option<Mutex<Budget>>,
}

/// What is left of the calls of a minute: a bucket that fills evenly.
struct Budget {
    per_minute: f64,
    left: f64,
    filled_at: Instant,
}

impl LiveKitLimiter {
    pub(crate) fn new(max_in_flight: usize, per_minute: Option<usize>) -> Self {
        let keeper_permits = (max_in_flight * 3 / 4).max(1);
        Self {
            in_flight: Semaphore::new(max_in_flight.max(1)),
            keeper_permits: Semaphore::new(keeper_permits),
            budget: per_minute.map(|calls| Mutex::new(Budget::new(calls))),
        }
    }

    /// Waiters until a call may begin, which ends when the permit is dropped. A start is never refused
    /// for the minute's sake: it is what the keeper leaves room for.
    pub(crate) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.spend();
        self.in_flight.acquire().await.ok()
    }

    /// The same, for the keeper.
    pub(crate) async fn acquire_for_keeper(
        &self,
    ) -> (Option<SemaphorePermit<'_>>, Option<SemaphorePermit<'_>>) {
        let keeper_permits = self.keeper_permits.acquire().await.ok();
        (keeper_permits, self.acquire().await)
    }

    fn spend(&self) {
        if let Some(budget) = &self.budget {
            budget.lock().unwrap_or_else(PoisonError::into_inner).spend(Instant::now());
        }
    }

    /// What there is room to look at: when the minute's calls run low, only what is under way.
    pub(crate) fn urgency(&self) -> Urgency {
        let Some(budget) = &self.budget else { return Urgency::Any };
        let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.fill(Instant::now());
        if budget.left > budget.per_minute * RESERVE { Urgency::Any } else { Urgency::InProgress }
    }
}

impl Budget {
    #[allow(clippy::cast_precision_loss, reason = "a million calls a minute are the most")]
    fn new(per_minute: usize) -> Self {
        let per_minute = per_minute as f64;
        Self { per_minute, left: per_minute, filled_at: Instant::now() }
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        let filled = self.left + self.per_minute * since / MINUTE.as_secs_f64();
        self.left = filled.min(self.per_minute);
        self.filled_at = now;
    }

    /// One more call. Below nothing, too: what must be done is done, and paid back.
    fn spend(&mut self, now: Instant) {
        self.fill(now);
        self.left -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_that_runs_low_leaves_what_is_at_rest() {
        let calls = LiveKitLimiter::new(8, Some(100));
        assert_eq!(calls.urgency(), Urgency::Any);
        for _ in 0..80 {
            calls.spend();
        }
        assert_eq!(calls.urgency(), Urgency::InProgress);
        assert_eq!(LiveKitLimiter::new(8, None).urgency(), Urgency::Any);
    }

    #[test]
    fn a_bucket_fills_evenly_and_not_over() {
        let mut budget = Budget::new(60);
        let begun = budget.filled_at;
        for _ in 0..70 {
            budget.spend(begun);
        }
        assert!((budget.left + 10.0).abs() < 0.001, "what was overdrawn is paid back first");
        budget.fill(begun + Duration::from_secs(30));
        assert!((budget.left - 20.0).abs() < 0.001);
        budget.fill(begun + Duration::from_hours(1));
        assert!((budget.left - 60.0).abs() < 0.001);
    }
}
