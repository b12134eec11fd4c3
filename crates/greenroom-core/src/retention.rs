//! Deletion of old data in small batches: idempotency keys after 24 hours, and sessions that are
//! over after the configured number of days.

use std::time::Duration;

use greenroom_store::idempotency::purge_expired_keys;
use greenroom_store::retention::delete_old_sessions;
use tokio::time::sleep;

use crate::{Error, Greenroom};

/// Pause between two passes over all data.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

/// Pause between two batches, so that they do not slow down requests.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

impl Greenroom {
    /// Deletes old data until the future is dropped.
    pub(crate) async fn run_retention(&self) {
        loop {
            if let Err(error) = self.purge_expired().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to purge expired data"
                );
            }
            sleep(PURGE_INTERVAL).await;
        }
    }

    /// Makes one pass over all keys and all sessions that are over.
    async fn purge_expired(&self) -> Result<(), Error> {
        let mut cursor = None;
        loop {
            let purge = async |db: &mut _| purge_expired_keys(db, cursor.as_ref()).await;
            cursor = self.shared.database.run_for_keeper(purge).await?;
            if cursor.is_none() {
                break;
            }
            sleep(BATCH_PAUSE).await;
        }
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
