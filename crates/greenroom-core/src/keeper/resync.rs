//! Finds the sessions of the held buckets that this process does not know.

use std::time::Duration;

use greenroom_store::bucket;
use greenroom_store::due::scheduled_sessions;
use tokio::time::{sleep, timeout};

use super::failures::{FailureLog, caught};
use super::schedule::MAX_WAITING;
use crate::{Error, Greenroom};

/// Interval between two searches without a new bucket.
const RESYNC_INTERVAL: Duration = Duration::from_mins(1);

/// Time until a search that failed is repeated.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Greenroom {
    /// Searches the held buckets when this process acquires some, and once a minute, until the future
    /// is dropped.
    pub(super) async fn resync_sessions(&self) {
        let mut failures = FailureLog::new("failed to search for sessions to check");
        loop {
            let acquired = self.shared.buckets.acquired.notified();
            drop(timeout(RESYNC_INTERVAL, acquired).await);
            while failures.record(caught(self.resync()).await) {
                sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn resync(&self) -> Result<(), Error> {
        let held = self.shared.buckets.held();
        let search = async |db: &mut _| {
            let restored = bucket::repair(db).await?;
            Ok((scheduled_sessions(db, &held, MAX_WAITING).await?, restored))
        };
        let (scheduled, restored) = self.shared.database.run_for_keeper(search).await?;
        if restored > 0 {
            tracing::warn!(count = restored, "restored missing buckets");
        }
        if !held.is_empty() {
            // Sessions of other buckets may wait here after a check without a result.
            self.shared.schedule.retain(&held);
        }
        self.shared.schedule.add_scheduled(&scheduled, self.shared.reconcile_interval());
        Ok(())
    }
}
