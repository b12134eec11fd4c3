//! Ends sessions whose deadline has passed, without an observation of LiveKit.

use std::time::Duration;

use chrono::{DateTime, Utc};
use greenroom_domain::lifecycle::Fact;
use greenroom_store::{Subject, record};
use tokio::time::{MissedTickBehavior, interval};

use crate::{Error, Greenroom};

/// Interval between two searches for overdue sessions.
const INTERVAL: Duration = Duration::from_millis(500);

/// The facts of the deadlines that need no observation.
const DEADLINES: [Fact; 2] = [Fact::MaxDurationReached, Fact::RoomNotOpened];

impl Greenroom {
    /// Ends overdue sessions until it is dropped. Runs beside the checks, so that a LiveKit that
    /// responds slowly or not at all delays no deadline. The next check deletes the room.
    pub(super) async fn enforce_deadlines(&self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            ticks.tick().await;
            let ended = self.end_overdue().await;
            if let (Err(error), false) = (&ended, is_failing) {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "failed to end overdue sessions"
                );
            }
            is_failing = ended.is_err();
        }
    }

    async fn end_overdue(&self) -> Result<(), Error> {
        for deadline in &DEADLINES {
            // Repeat until none is left: one statement ends a limited number.
            while self.end_overdue_by(deadline).await? {
                self.shared.waiters.wake();
                self.shared.due.notify_one();
            }
        }
        Ok(())
    }

    async fn end_overdue_by(&self, deadline: &Fact) -> Result<bool, Error> {
        // Facts of Greenroom have no time in LiveKit.
        let at = DateTime::<Utc>::UNIX_EPOCH;
        let end = async |db: &mut _| record(db, Subject::Overdue, deadline, at).await;
        self.shared.database.run_for_keeper(end).await
    }
}
