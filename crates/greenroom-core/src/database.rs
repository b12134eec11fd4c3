//! The connection pool, and the time limit of work on the database.

use std::time::Duration;

use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as ConnectError, RecyclingMethod,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use greenroom_domain::PoolSize;
use greenroom_store::{ConnectionError, ConnectionResult, DatabaseUrl, StoreError, connect};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::Error;

/// Time limit for one piece of work, including the wait for a connection. A PostgreSQL that stops
/// responding cannot enforce its own `statement_timeout` of 5 s. This limit is shorter, so that the
/// caller gets an error within the same 5 s.
const DB_TIMEOUT: Duration = Duration::from_millis(4_500);

type Transactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;

pub(crate) struct Database {
    url: DatabaseUrl,
    pool: Pool<AsyncPgConnection>,
    /// The keeper uses at most half of the pool, so that a backlog leaves connections for requests.
    keeper_permits: Semaphore,
}

impl Database {
    /// Creates a pool of at most `size` connections, without opening one.
    pub(crate) fn new(url: &DatabaseUrl, size: PoolSize) -> Result<Self, Error> {
        let mut config = ManagerConfig::default();
        // The default method sends a query before each use. The fast method also drops a connection
        // that is known to be closed; on any other broken connection, the first query fails.
        config.recycling_method = RecyclingMethod::Fast;
        let runtime = Handle::try_current().ok();
        config.custom_setup = Box::new(move |url| open(runtime.clone(), url));
        let manager = AsyncDieselConnectionManager::new_with_config(url.as_str(), config);
        let pool = Pool::builder(manager).max_size(usize::from(size.get())).build();
        let pool = pool.map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(Self {
            url: url.clone(),
            pool,
            keeper_permits: Semaphore::new(usize::from(size.get()) / 2),
        })
    }

    /// Returns the URL, for work that needs a connection of its own.
    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Runs `work` on one of the connections that the keeper may use.
    pub(crate) async fn run_for_keeper<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        let deadline = Instant::now() + DB_TIMEOUT;
        let Ok(_permit) = timeout_at(deadline, self.keeper_permits.acquire()).await else {
            return Err(Error::Overloaded);
        };
        self.run_until(deadline, work).await
    }

    /// Runs `work` in a transaction. Commits if `work` returns `Some`, and rolls back if it returns
    /// `None` or fails.
    pub(crate) async fn transact_until<T, F>(
        &self,
        deadline: Instant,
        work: F,
    ) -> Result<Option<T>, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<Option<T>, StoreError>,
    {
        self.run_until(deadline, async |db: &mut AsyncPgConnection| {
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
        })
        .await
    }

    /// Runs `work` on a connection of the pool, within [`DB_TIMEOUT`].
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_within(DB_TIMEOUT, work).await
    }

    /// Runs `work` on a connection of the pool, within `time_limit`.
    pub(crate) async fn run_within<T, F>(&self, time_limit: Duration, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_until(Instant::now() + time_limit, work).await
    }

    /// Runs `work` on a connection of the pool, until a deadline that several pieces of work share.
    pub(crate) async fn run_until<T, F>(&self, deadline: Instant, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        let connection = match timeout_at(deadline, self.pool.get()).await {
            Ok(connection) => connection.map_err(checkout_error)?,
            Err(_) => return Err(Error::Overloaded),
        };
        let mut checked_out = CheckedOut(Some(connection));
        let connection = checked_out.0.as_mut().ok_or(Error::Overloaded)?;
        let result = timeout_at(deadline, work(connection)).await;
        let result = result
            .map_err(|_| StoreError::Unavailable("no response within the time limit".into()))?;
        checked_out.return_to_pool();
        Ok(result?)
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

/// A connection with work in progress.
///
/// If the work is dropped because of a time-out or because its caller was dropped, the protocol
/// state of the connection is unknown and a transaction may be open. `drop` therefore closes the
/// connection, and PostgreSQL rolls back.
struct CheckedOut(Option<Object<AsyncPgConnection>>);

impl CheckedOut {
    /// Returns the connection to the pool after its work has finished.
    fn return_to_pool(mut self) {
        drop(self.0.take());
    }
}

impl Drop for CheckedOut {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

fn checkout_error(error: PoolError) -> Error {
    match error {
        PoolError::Backend(ConnectError::ConnectionError(error)) => StoreError::from(error).into(),
        PoolError::Backend(ConnectError::QueryError(error)) => StoreError::from(error).into(),
        error => StoreError::Unavailable(error.into()).into(),
    }
}
