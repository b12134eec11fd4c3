//! Deletion of old data in small batches: idempotency keys after 24 hours, and ended
//! sessions after the configured number of days.

use std::time::Duration;

use greenroom_domain::Bucket;
use greenroom_store::idempotency::purge_expired_keys;
use greenroom_store::retention::delete_old_sessions;
use tokio::time::sleep;

use crate::{Error, Greenroom};

/// Pause between two passes over all data.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

/// Pause before a replica looks again whether it must delete old data.
const HOLDER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two batches, so that they do not slow down requests.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

impl Greenroom {
    /// Deletes old data until the future is dropped. Only the replica that holds the first bucket does
    /// it. Replicas that have lost LiveKit release their buckets, so the first bucket may have no
    /// holder; therefore each of these replicas deletes old data too.
    pub(crate) async fn run_retention(&self) {
        loop {
            let is_holder = self.shared.buckets.held().contains_key(&Bucket::FIRST);
            if is_holder || self.is_cut_off() {
                // A failure of one does not stop the other.
                for purged in [self.purge_expired_keys().await, self.delete_old_sessions().await] {
                    if let Err(error) = purged {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "failed to purge expired data");
                    }
                }
                sleep(PURGE_INTERVAL).await;
            } else {
                sleep(HOLDER_CHECK_INTERVAL).await;
            }
        }
    }

    /// Releases all expired idempotency keys, in batches.
    async fn purge_expired_keys(&self) -> Result<(), Error> {
        let mut cursor = None;
        loop {
            let purge = async |db: &mut _| purge_expired_keys(db, cursor.as_ref()).await;
            cursor = self.shared.database.run_for_keeper(purge).await?;
            if cursor.is_none() {
                return Ok(());
            }
            sleep(BATCH_PAUSE).await;
        }
    }

    /// Deletes all sessions that ended before the retention period, in batches. Does nothing without a
    /// configured period.
    async fn delete_old_sessions(&self) -> Result<(), Error> {
        let Some(days) = self.shared.settings.retention_days else { return Ok(()) };
        while self
            .shared
            .database
            .run_for_keeper(async |db: &mut _| delete_old_sessions(db, days.get()).await)
            .await?
        {
            sleep(BATCH_PAUSE).await;
        }
        Ok(())
    }
}
