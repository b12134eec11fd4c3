//! The pool of connections: the only one, and the only place that bounds how long a query takes.

use std::time::Duration;

use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as ConnectError, RecyclingMethod,
};
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use greenroom_store::{ConnectionError, ConnectionResult, StoreError, connect};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::Error;

/// How long one step may take on the database, the wait for a connection included. PostgreSQL's own
/// time-out of a statement is five seconds; this one ends what PostgreSQL cannot, being gone without
/// a word, and leaves time to tell the caller within the same five.
const DB_TIMEOUT: Duration = Duration::from_millis(4_500);

type Transactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;

pub(crate) struct Database {
    pool: Pool<AsyncPgConnection>,
    /// The keeper's share of the pool: however much is due, requests find connections.
    keeper_permits: Semaphore,
}

impl Database {
    /// A pool of at most `size` connections, none of them open yet.
    pub(crate) fn new(url: &SecretString, size: usize) -> Result<Self, Error> {
        let mut config = ManagerConfig::default();
        // The default sends a query before each use. A connection known to be closed is dropped
        // either way; one that is not known to be answers the query itself with an error.
        config.recycling_method = RecyclingMethod::Fast;
        let runtime = Handle::try_current().ok();
        config.custom_setup = Box::new(move |url| open(runtime.clone(), url));
        let manager = AsyncDieselConnectionManager::new_with_config(url.expose_secret(), config);
        let pool = Pool::builder(manager).max_size(size).build();
        let pool = pool.map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(Self { pool, keeper_permits: Semaphore::new((size / 2).max(1)) })
    }

    /// Runs `work` for the keeper, on one of the connections that are its share.
    pub(crate) async fn run_for_keeper<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        let deadline = Instant::now() + DB_TIMEOUT;
        let Ok(_share) = timeout_at(deadline, self.keeper_permits.acquire()).await else {
            return Err(Error::Overloaded);
        };
        self.run_until(deadline, work).await
    }

    /// Runs `work` in a transaction that is kept when it comes to something, and else leaves no trace.
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
                Ok(Some(done)) => {
                    Transactions::commit_transaction(db).await?;
                    Ok(Some(done))
                }
                Ok(None) => {
                    Transactions::rollback_transaction(db).await?;
                    Ok(None)
                }
                Err(error) => {
                    // A connection that is gone has rolled back, and the first error tells of it.
                    let _ = Transactions::rollback_transaction(db).await;
                    Err(error)
                }
            }
        })
        .await
    }

    /// Runs `work` on a connection of its own.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_within(DB_TIMEOUT, work).await
    }

    /// The same, for work whose result is not worth a longer wait.
    pub(crate) async fn run_within<T, F>(&self, patience: Duration, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        self.run_until(Instant::now() + patience, work).await
    }

    /// The same, for work of which more is to come in the same time.
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
        let done = timeout_at(deadline, work(connection)).await;
        let done = done.map_err(|_| StoreError::Unavailable("no answer in time".into()))?;
        checked_out.return_to_pool();
        Ok(done?)
    }
}

/// Opens a connection on the runtime of the service. It lives on the one that opens it, and a web
/// server's workers have runtimes of their own, which end one by one when the process is to stop.
fn open(runtime: Option<Handle>, url: &str) -> BoxFuture<'_, ConnectionResult<AsyncPgConnection>> {
    let Some(runtime) = runtime else { return connect(url).boxed() };
    let url = url.to_owned();
    async move {
        let opened = runtime.spawn(async move { connect(&url).await }).await;
        opened.map_err(|ended| ConnectionError::BadConnection(ended.to_string()))?
    }
    .boxed()
}

/// A connection with work under way. Half-way through, be it that time ran out or that whoever
/// waited went away, nobody knows what is on its wire or whether a transaction is open: dropped
/// then, it is closed, and PostgreSQL rolls back.
struct CheckedOut(Option<Object<AsyncPgConnection>>);

impl CheckedOut {
    /// The work came to its end: somebody else may have the connection.
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
