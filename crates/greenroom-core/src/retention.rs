//! Forgetting what is old, in small batches: idempotency keys after a day, and sessions after as
//! many days as the operator says.

use std::time::Duration;

use greenroom_store::idempotency::purge_expired_keys;
use greenroom_store::retention::delete_old_sessions;
use tokio::time::sleep;

use crate::{Error, Greenroom};

/// Between two walks over everything.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

/// Between two batches, so that they are not felt.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

impl Greenroom {
    /// Forgets what is old, for ever; to be dropped when it shall stop.
    pub(crate) async fn run_retention(&self) {
        loop {
            if let Err(error) = self.purge_expired().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what is old could not be forgotten"
                );
            }
            sleep(PURGE_INTERVAL).await;
        }
    }

    /// One walk over all keys and all that is over.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn purge_expired(&self) -> Result<(), Error> {
        let mut cursor = None;
        loop {
            let purge = async |db: &mut _| purge_expired_keys(db, cursor.as_ref()).await;
            cursor = self.shared.database.run_for_keeper(purge).await?;
            if cursor.is_none() {
                break;
            }
            sleep(BATCH_PAUSE).await;
        }
        let Some(days) = self.shared.retention_days else { return Ok(()) };
        while self
            .shared
            .database
            .run_for_keeper(async |db: &mut _| delete_old_sessions(db, days).await)
            .await?
        {
            sleep(BATCH_PAUSE).await;
        }
        Ok(())
    }
}
