//! Forgetting what is old, in small batches: idempotency keys after a day, and sessions after as
//! many days as the operator says.

use std::time::Duration;

use greenroom_store::idempotency::forget_old_keys;
use greenroom_store::retention::delete_old_sessions;
use tokio::time::sleep;

use crate::{Error, Greenroom};

/// Between two walks over everything.
const BETWEEN_WALKS: Duration = Duration::from_mins(10);

/// Between two batches, so that they are not felt.
const BETWEEN_BATCHES: Duration = Duration::from_millis(100);

impl Greenroom {
    /// Forgets what is old, for ever; to be dropped when it shall stop.
    pub(crate) async fn keep_house(&self) {
        loop {
            if let Err(error) = self.forget_the_old().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what is old could not be forgotten"
                );
            }
            sleep(BETWEEN_WALKS).await;
        }
    }

    /// One walk over all keys and all that is over.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn forget_the_old(&self) -> Result<(), Error> {
        let mut position = None;
        loop {
            let forget = async |db: &mut _| forget_old_keys(db, position.as_ref()).await;
            position = self.shared.database.keep(forget).await?;
            if position.is_none() {
                break;
            }
            sleep(BETWEEN_BATCHES).await;
        }
        let Some(days) = self.shared.retention_days else { return Ok(()) };
        while self
            .shared
            .database
            .keep(async |db: &mut _| delete_old_sessions(db, days).await)
            .await?
        {
            sleep(BETWEEN_BATCHES).await;
        }
        Ok(())
    }
}
