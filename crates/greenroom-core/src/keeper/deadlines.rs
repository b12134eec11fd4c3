//! Ends sessions whose deadline has passed, without an observation of LiveKit.

use std::time::Duration;

use greenroom_store::DueRange;
use greenroom_store::overdue::{Deadline, MAX_OVERDUE, end_overdue};
use tokio::time::{MissedTickBehavior, interval};

use super::failures::{FailureLog, caught};
use super::search::RangeSelector;
use crate::{Error, Greenroom};

/// Interval between two searches for overdue sessions. A deadline may be late by this time.
const INTERVAL: Duration = Duration::from_secs(1);

impl Greenroom {
    /// Ends overdue sessions until the future is dropped. Runs beside the checks, so that a LiveKit
    /// that responds slowly or not at all delays no deadline. The next check deletes the room.
    pub(super) async fn enforce_deadlines(&self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = FailureLog::new("failed to end overdue sessions");
        let mut ranges = RangeSelector::default();
        loop {
            ticks.tick().await;
            if self.shared.breaker.is_open() {
                // No check moves `next_check_at` meanwhile, so it may be older than the recent range when
                // the deadline passes.
                ranges.search_all_next();
            }
            let ended = caught(self.end_overdue(ranges.next_range())).await;
            if ended.is_err() {
                ranges.search_all_next();
            }
            failures.record(ended);
        }
    }

    async fn end_overdue(&self, range: DueRange) -> Result<(), Error> {
        // A check may find that the room was opened, and the session then continues. While LiveKit
        // lists rooms, only the checks enforce the deadline of the room.
        let is_paused = self.shared.breaker.is_open();
        let deadlines = if is_paused {
            &[Deadline::MaxDuration, Deadline::RoomOpening][..]
        } else {
            &[Deadline::MaxDuration]
        };
        for &deadline in deadlines {
            let end = async |db: &mut _| end_overdue(db, deadline, range).await;
            let mut ended = MAX_OVERDUE;
            while ended == MAX_OVERDUE {
                ended = self.shared.database.run_for_keeper(end).await?;
                if ended > 0 {
                    self.shared.waiters.wake();
                    self.shared.search_requested.notify_one();
                }
            }
        }
        Ok(())
    }
}
