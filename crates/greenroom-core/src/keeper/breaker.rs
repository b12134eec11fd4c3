//! The circuit breaker: stops the checks of sessions while LiveKit does not list rooms.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::Greenroom;

/// Time until LiveKit is called again after the first failure. It doubles with each further failure.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(2);

const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Whether the keeper's latest call that lists rooms succeeded.
#[derive(Default)]
pub(crate) struct Breaker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outage: Option<Outage>,
    recovered_at: Option<Instant>,
    /// The delay that the next outage doubles, because no rooms were listed since the latest one.
    latest_delay: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Outage {
    since: Instant,
    retry_delay: Duration,
    retry_at: Instant,
}

impl Breaker {
    /// Records the failure of a call that began at `began`. Returns true if it is the first one of an
    /// outage.
    ///
    /// Failures before the next attempt do not count: their calls began before the outage was known.
    /// Neither does the late failure of a call that began before LiveKit recovered.
    pub(super) fn record_failure(&self, began: Instant) -> bool {
        let (mut state, now) = (self.state.lock(), Instant::now());
        if state.recovered_at.is_some_and(|at| began < at) {
            return false;
        }
        let retry_delay = match state.outage {
            Some(outage) if now < outage.retry_at => return false,
            Some(outage) => (outage.retry_delay * 2).min(MAX_RETRY_DELAY),
            None => {
                state.latest_delay.map_or(MIN_RETRY_DELAY, |delay| (delay * 2).min(MAX_RETRY_DELAY))
            }
        };
        let is_first = state.outage.is_none();
        let since = state.outage.map_or(began, |outage| outage.since);
        state.latest_delay = Some(retry_delay);
        state.outage = Some(Outage { since, retry_delay, retry_at: now + retry_delay });
        is_first
    }

    /// Records a call that succeeded during an outage. Returns how long the outage lasted.
    pub(super) fn record_recovery(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        let outage = state.outage.take()?;
        state.recovered_at = Some(Instant::now());
        Some(outage.since.elapsed())
    }

    /// Records that the rooms of sessions were listed. The call that ends an outage lists none, so it
    /// may succeed while lists of rooms fail.
    pub(super) fn record_list(&self) {
        self.state.lock().latest_delay = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.retry_at().is_some()
    }

    /// Returns whether an outage has lasted for at least `period`.
    pub(super) fn is_open_for(&self, period: Duration) -> bool {
        self.state.lock().outage.is_some_and(|outage| outage.since.elapsed() >= period)
    }

    /// Returns the time of the next attempt during an outage.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.state.lock().outage.map(|outage| outage.retry_at)
    }

    /// Returns whether an outage ended less than `period` ago.
    pub(super) fn recovered_within(&self, period: Duration) -> bool {
        self.state.lock().recovered_at.is_some_and(|at| at.elapsed() < period)
    }
}

impl Greenroom {
    /// Waits until LiveKit lists rooms, if it did not at the latest attempt.
    pub(super) async fn wait_until_rooms_are_listed(&self) {
        let breaker = &self.shared.breaker;
        while let Some(retry_at) = breaker.retry_at() {
            sleep_until(retry_at).await;
            let permits = self.shared.livekit.limiter.acquire_for_keeper().await;
            let began = Instant::now();
            let checked = self.shared.livekit.rooms.check().await;
            drop(permits);
            match checked {
                Ok(()) => {
                    if let Some(outage) = breaker.record_recovery() {
                        tracing::info!(seconds = outage.as_secs(), "recovered from LiveKit outage");
                    }
                }
                Err(_) => drop(breaker.record_failure(began)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn late_failure_of_a_call_before_the_recovery_does_not_count() {
        let breaker = Breaker::default();
        let old_call = Instant::now();
        advance(Duration::from_secs(2)).await;
        assert!(breaker.record_failure(old_call));
        advance(Duration::from_secs(2)).await;
        assert_eq!(breaker.record_recovery().unwrap(), Duration::from_secs(4));
        let new_call = Instant::now();
        advance(Duration::from_secs(2)).await;
        assert!(!breaker.record_failure(old_call));
        assert!(!breaker.is_open());
        assert!(breaker.record_failure(new_call), "the next outage");
    }

    #[tokio::test(start_paused = true)]
    async fn outage_right_after_a_recovery_continues_the_delays() {
        let breaker = Breaker::default();
        for seconds in [2, 4, 8] {
            breaker.record_failure(Instant::now());
            let delay = breaker.retry_at().unwrap() - Instant::now();
            assert_eq!(delay, Duration::from_secs(seconds), "no rooms were listed in between");
            advance(delay).await;
            breaker.record_recovery().unwrap();
        }
        breaker.record_list();
        breaker.record_failure(Instant::now());
        assert_eq!(breaker.retry_at().unwrap() - Instant::now(), MIN_RETRY_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_delay_doubles_up_to_30_seconds() {
        let breaker = Breaker::default();
        assert!(!breaker.is_open());
        assert!(breaker.record_failure(Instant::now()), "the first failure is logged");
        for seconds in [2, 4, 8, 16, 30, 30] {
            assert!(!breaker.record_failure(Instant::now()), "a call that began before the outage");
            let delay = breaker.retry_at().unwrap() - Instant::now();
            assert_eq!(delay, Duration::from_secs(seconds));
            advance(delay).await;
            assert!(!breaker.record_failure(Instant::now()));
        }
        assert_eq!(breaker.record_recovery().unwrap(), Duration::from_secs(90));
        assert!(!breaker.is_open() && breaker.recovered_within(Duration::from_secs(1)));
        assert!(breaker.record_recovery().is_none());
        advance(Duration::from_secs(1)).await;
        assert!(!breaker.recovered_within(Duration::from_secs(1)));
    }
}
