//! The connection pool, and the time limit of work on the database.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as ConnectError, RecyclingMethod,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use greenroom_domain::PoolSize;
use greenroom_store::connection::settle;
use greenroom_store::{ConnectionError, ConnectionResult, DatabaseUrl, StoreError, connect};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::Error;
use crate::bulkhead::{Bulkheads, Permit, Work};

/// Time limit for one piece of work, including the wait for a connection. A PostgreSQL that stops
/// responding cannot enforce its own `statement_timeout` of 5 s. This limit is shorter, so that the
/// caller gets an error within the same 5 s.
const DB_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Attempts to clean up after a lost connection, and the pause before each.
const MAX_CLEANUP_ATTEMPTS: u32 = 3;
const CLEANUP_RETRY_DELAY: Duration = Duration::from_millis(300);

type Transactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;

/// What is done with a connection after its work was abandoned and PostgreSQL has settled it.
pub(crate) type Cleanup = Arc<
    dyn for<'a> Fn(&'a mut AsyncPgConnection) -> BoxFuture<'a, Result<(), StoreError>>
        + Send
        + Sync,
>;

pub(crate) struct Database {
    url: DatabaseUrl,
    pool: Pool<AsyncPgConnection>,
    bulkheads: Bulkheads,
    /// The runtime that opens the connections.
    runtime: Option<Handle>,
}

impl Database {
    /// Creates a pool of at most `size` connections, without opening one.
    pub(crate) fn new(url: &DatabaseUrl, size: PoolSize) -> Result<Self, Error> {
        let mut config = ManagerConfig::default();
        // The default method sends a query before each use. The fast method also drops a connection
        // that is known to be closed; on any other broken connection, the first query fails.
        config.recycling_method = RecyclingMethod::Fast;
        let runtime = Handle::try_current().ok();
        let opening = runtime.clone();
        config.custom_setup = Box::new(move |url| open(opening.clone(), url));
        let manager = AsyncDieselConnectionManager::new_with_config(url.as_str(), config);
        let pool = Pool::builder(manager).max_size(usize::from(size.get())).build();
        let pool = pool.map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(Self { url: url.clone(), pool, bulkheads: Bulkheads::new(size), runtime })
    }

    /// Returns the URL, for work that needs a connection of its own.
    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Runs a request's `work`, within [`DB_TIMEOUT`].
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_within(DB_TIMEOUT, work).await
    }

    /// Runs a request's `work`, within `time_limit`.
    pub(crate) async fn run_within<T, F>(&self, time_limit: Duration, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_until(Work::Request, Instant::now() + time_limit, work).await
    }

    /// Runs `work` of the keeper.
    pub(crate) async fn run_for_keeper<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_until(Work::Keeper, Instant::now() + DB_TIMEOUT, work).await
    }

    /// Runs the `work` of a webhook.
    pub(crate) async fn run_for_webhook<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_until(Work::Webhook, Instant::now() + DB_TIMEOUT, work).await
    }

    /// Runs `work` until a deadline that several pieces of work share.
    pub(crate) async fn run_until<T, F>(
        &self,
        kind: Work,
        deadline: Instant,
        work: F,
    ) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_with_cleanup(kind, deadline, None, work).await
    }

    /// Runs `work` until `deadline`. If its outcome stays unknown, because PostgreSQL did not
    /// respond in time or the connection was lost, runs `cleanup` afterwards, in the background.
    pub(crate) async fn run_with_cleanup<T, F>(
        &self,
        kind: Work,
        deadline: Instant,
        cleanup: Option<Cleanup>,
        work: F,
    ) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        let permit = self.bulkheads.acquire(kind, deadline).await?;
        let connection = match timeout_at(deadline, self.pool.get()).await {
            Ok(connection) => connection.map_err(checkout_error)?,
            Err(_) => return Err(Error::Overloaded),
        };
        let mut checked_out = CheckedOut {
            connection: Some(connection),
            permit: Some(permit),
            cleanup,
            pool: &self.pool,
            runtime: self.runtime.as_ref(),
        };
        let connection = checked_out.connection.as_mut().ok_or(Error::Overloaded)?;
        let Ok(result) = timeout_at(deadline, work(connection)).await else {
            // Dropping `checked_out` settles the connection.
            return Err(StoreError::Unavailable("no response within the time limit".into()).into());
        };
        match &result {
            Err(error) if error.is_outcome_unknown() => {}
            Err(error) if error.requires_new_connection() => checked_out.close(),
            _ => checked_out.return_to_pool(),
        }
        Ok(result?)
    }

    /// Runs `work` of a start in a transaction. Commits if `work` returns `Some`, and rolls back if
    /// it returns `None` or fails.
    pub(crate) async fn transact_with_cleanup<T, F>(
        &self,
        deadline: Instant,
        cleanup: Option<Cleanup>,
        work: F,
    ) -> Result<Option<T>, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<Option<T>, StoreError>,
    {
        let transact = async |db: &mut AsyncPgConnection| {
            Transactions::begin_transaction(db).await?;
            match work(db).await {
                Ok(Some(value)) => {
                    Transactions::commit_transaction(db).await?;
                    Ok(Some(value))
                }
                Ok(None) => {
                    Transactions::rollback_transaction(db).await?;
                    Ok(None)
                }
                Err(error) => {
                    // A closed connection has already rolled back. The first error is the cause.
                    let _ = Transactions::rollback_transaction(db).await;
                    Err(error)
                }
            }
        };
        self.run_with_cleanup(Work::Start, deadline, cleanup, transact).await
    }
}

/// Opens a connection on the runtime that created the pool. A connection needs the runtime that
/// opened it. The workers of an HTTP server have runtimes of their own, which shut down one by one.
fn open(runtime: Option<Handle>, url: &str) -> BoxFuture<'_, ConnectionResult<AsyncPgConnection>> {
    let Some(runtime) = runtime else { return connect(url).boxed() };
    let url = url.to_owned();
    async move {
        let opened = runtime.spawn(async move { connect(&url).await }).await;
        opened.map_err(|error| ConnectionError::BadConnection(error.to_string()))?
    }
    .boxed()
}

/// A connection with work in progress, and the permit to use it.
///
/// If the work is dropped because of a time-out or because its caller was dropped, a statement may
/// still be in progress. `drop` then cancels it in the background, and keeps the permit until
/// PostgreSQL has finished: otherwise time-outs would add ever more work to a slow server.
struct CheckedOut<'a> {
    connection: Option<Object<AsyncPgConnection>>,
    permit: Option<Permit>,
    cleanup: Option<Cleanup>,
    pool: &'a Pool<AsyncPgConnection>,
    runtime: Option<&'a Handle>,
}

impl CheckedOut<'_> {
    /// Returns the connection to the pool after its work has finished.
    fn return_to_pool(mut self) {
        drop(self.connection.take());
    }

    /// Closes the connection, because its session on the server is no longer usable.
    fn close(mut self) {
        drop(self.connection.take().map(Object::take));
    }
}

impl Drop for CheckedOut<'_> {
    fn drop(&mut self) {
        let (Some(connection), Some(runtime)) = (self.connection.take(), self.runtime) else {
            return;
        };
        // The protocol state is unknown, so the connection does not return to the pool.
        let connection = Object::take(connection);
        let (permit, cleanup, pool) = (self.permit.take(), self.cleanup.take(), self.pool.clone());
        runtime.spawn(async move {
            let settled = settle_abandoned(connection, cleanup.as_ref()).await;
            drop(permit);
            if let (Err(error), Some(cleanup)) = (settled, cleanup) {
                tracing::warn!(
                    error = &error as &dyn StdError,
                    "failed to settle abandoned statement"
                );
                retry_cleanup(&pool, &cleanup).await;
            }
        });
    }
}

/// Ends the statement in progress on a connection, cleans up after it, and closes the connection.
async fn settle_abandoned(
    mut connection: AsyncPgConnection,
    cleanup: Option<&Cleanup>,
) -> Result<(), StoreError> {
    settle(&mut connection).await?;
    match cleanup {
        Some(cleanup) => cleanup(&mut connection).await,
        None => Ok(()),
    }
}

/// Cleans up on other connections, after the first one was lost.
async fn retry_cleanup(pool: &Pool<AsyncPgConnection>, cleanup: &Cleanup) {
    for _ in 0..MAX_CLEANUP_ATTEMPTS {
        sleep(CLEANUP_RETRY_DELAY).await;
        let attempt = timeout(DB_TIMEOUT, async {
            let mut connection = pool.get().await.map_err(checkout_error)?;
            Ok::<_, Error>(cleanup(&mut connection).await?)
        });
        if let Ok(Ok(())) = attempt.await {
            return;
        }
    }
    tracing::warn!(attempts = MAX_CLEANUP_ATTEMPTS, "failed to clean up after lost connection");
}

fn checkout_error(error: PoolError) -> Error {
    match error {
        PoolError::Backend(ConnectError::ConnectionError(error)) => StoreError::from(error).into(),
        PoolError::Backend(ConnectError::QueryError(error)) => StoreError::from(error).into(),
        error => StoreError::Unavailable(error.into()).into(),
    }
}
