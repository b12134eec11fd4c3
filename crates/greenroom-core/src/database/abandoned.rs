//! Abandoned work: ends its statement in progress, and cleans up after it.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use futures_util::future::BoxFuture;
use greenroom_store::StoreError;
use greenroom_store::connection::settle;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Database, checkout_error};
use crate::Error;
use crate::bulkhead::{Bulkheads, Permit, Work};

/// Pause before each attempt to clean up after a lost connection.
const CLEANUP_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Time in which the statement of a lost connection may still be committed: its
/// `statement_timeout`, and some seconds for the commit itself.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit at shutdown for settling abandoned work: six seconds until PostgreSQL has ended its
/// statement, and some seconds to clean up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Cleans up after abandoned work. Returns whether there was something to clean up.
pub(crate) type Cleanup = Arc<
    dyn for<'a> Fn(&'a mut AsyncPgConnection) -> BoxFuture<'a, Result<bool, StoreError>>
        + Send
        + Sync,
>;

impl Database {
    /// Waits until abandoned statements are settled and their cleanup is done, at most for
    /// [`SETTLE_TIMEOUT`].
    pub(crate) async fn finish_settling(&self) {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let mut tasks = std::mem::take(&mut *self.settling.lock());
            if tasks.is_empty() {
                return;
            }
            let finished = async { while tasks.join_next().await.is_some() {} };
            if timeout_at(deadline, finished).await.is_err() {
                tracing::warn!(count = tasks.len(), "failed to settle abandoned work in time");
                tasks.detach_all();
                return;
            }
        }
    }

    /// Spawns a task for which [`finish_settling`](Self::finish_settling) waits.
    pub(crate) fn spawn_until_settled(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(runtime) = self.task_runtime() else { return };
        let mut tasks = self.settling.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &runtime);
    }
}

/// Work that was abandoned while PostgreSQL executed it.
pub(super) struct Abandoned {
    pub(super) permit: Option<Permit>,
    pub(super) cleanup: Option<Cleanup>,
    pub(super) pool: Pool<AsyncPgConnection>,
    pub(super) bulkheads: Arc<Bulkheads>,
}

impl Abandoned {
    /// Ends the statement in progress, cleans up after it, and closes the connection.
    pub(super) async fn settle(mut self, mut connection: AsyncPgConnection) {
        if let Some(permit) = &mut self.permit {
            permit.count_abandoned();
        }
        let settled = settle(&mut connection).await;
        let cleaned_up = match (&settled, &self.cleanup) {
            (Ok(()), Some(cleanup)) => match cleanup(&mut connection).await {
                // A late cancel request may have hit the cleanup.
                Err(StoreError::Query(_)) => cleanup(&mut connection).await.map(drop),
                cleaned_up => cleaned_up.map(drop),
            },
            _ => settled,
        };
        drop((connection, self.permit.take()));
        if let Err(error) = cleaned_up {
            tracing::warn!(error = &error as &dyn StdError, "failed to settle abandoned statement");
            if let Some(cleanup) = &self.cleanup {
                self.retry_cleanup(cleanup).await;
            }
        }
    }

    /// Cleans up on other connections until there was something to clean up, or until the lost
    /// connection can no longer commit anything.
    async fn retry_cleanup(&self, cleanup: &Cleanup) {
        let deadline = Instant::now() + CLEANUP_TIMEOUT;
        let mut last_failed = false;
        while Instant::now() < deadline {
            sleep(CLEANUP_RETRY_DELAY).await;
            let attempt = timeout_at(deadline, self.try_cleanup(cleanup, deadline)).await;
            match attempt {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => last_failed = false,
                Ok(Err(_)) | Err(_) => last_failed = true,
            }
        }
        if last_failed {
            tracing::warn!("failed to clean up after lost connection");
        }
    }

    async fn try_cleanup(&self, cleanup: &Cleanup, deadline: Instant) -> Result<bool, Error> {
        let _permit = self.bulkheads.acquire(Work::StartStep, deadline).await?;
        let connection = self.pool.get().await.map_err(checkout_error)?;
        // Closed after use: an attempt that is dropped leaves its statement in progress.
        let mut connection = Object::take(connection);
        Ok(cleanup(&mut connection).await?)
    }
}
