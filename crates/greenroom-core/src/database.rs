//! The connection pool, and the time limit of work on the database.

mod abandoned;

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
use greenroom_store::connection::rollback_or_lost;
use greenroom_store::{ConnectionError, ConnectionResult, DatabaseUrl, StoreError, connect};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::abandoned::Abandoned;
pub(crate) use self::abandoned::Cleanup;
use crate::Error;
use crate::bulkhead::{Bulkheads, Permit, Work};

/// Time limit for one piece of work, including the wait for a connection. A PostgreSQL that stops
/// responding cannot enforce its own `statement_timeout` of 5 s. This limit is shorter, so that the
/// caller gets an error within the same 5 s.
pub(crate) const DB_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Time without a finished statement after which the database counts as down.
const SUCCESS_EXPIRY: Duration = Duration::from_secs(5);

type Transactions = <AsyncPgConnection as AsyncConnection>::TransactionManager;

pub(crate) struct Database {
    url: DatabaseUrl,
    pool: Pool<AsyncPgConnection>,
    bulkheads: Arc<Bulkheads>,
    /// When PostgreSQL last finished a piece of work.
    last_response: Mutex<Option<Instant>>,
    /// The settling of abandoned work that is in progress, and tasks that have finished since.
    settling: Mutex<JoinSet<()>>,
    /// The runtime that opens the connections and runs work that outlives a request.
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
        Ok(Self {
            url: url.clone(),
            pool,
            bulkheads: Arc::new(Bulkheads::new(size)),
            last_response: Mutex::default(),
            settling: Mutex::default(),
            runtime,
        })
    }

    /// Returns the URL, for work that needs a connection of its own.
    pub(crate) fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Spawns a task on the runtime that created the pool: the runtime of the request may end before
    /// the process does. A service that was created outside a runtime uses that of the request.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.task_runtime() {
            runtime.spawn(task);
        }
    }

    fn task_runtime(&self) -> Option<Handle> {
        self.runtime.clone().or_else(|| Handle::try_current().ok())
    }

    /// Whether PostgreSQL has finished some work within the last seconds.
    pub(crate) fn has_responded_recently(&self) -> bool {
        self.last_response.lock().is_some_and(|at| at.elapsed() < SUCCESS_EXPIRY)
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
        let mut permit = self.bulkheads.acquire(kind, deadline).await?;
        let connection = match timeout_at(deadline, self.pool.get()).await {
            Ok(connection) => connection.map_err(checkout_error)?,
            Err(_) => return Err(Error::Overloaded),
        };
        permit.begin_work();
        let mut checked_out = CheckedOut {
            connection: Some(connection),
            permit: Some(permit),
            cleanup,
            database: self,
        };
        let connection = checked_out.connection.as_mut().ok_or(Error::Overloaded)?;
        let work = async {
            match work(connection).await {
                Err(error)
                    if error.requires_new_connection() && rollback_or_lost(connection).await =>
                {
                    Err(error.with_lost_connection())
                }
                result => result,
            }
        };
        let Ok(result) = timeout_at(deadline, work).await else {
            // Dropping `checked_out` settles the connection.
            return Err(StoreError::Unavailable("no response within the time limit".into()).into());
        };
        match &result {
            // Dropping `checked_out` settles the connection.
            Err(error) if error.is_outcome_unknown() => {}
            Err(error) if error.requires_new_connection() => checked_out.close(),
            _ => {
                *self.last_response.lock() = Some(Instant::now());
                checked_out.return_to_pool();
            }
        }
        Ok(result?)
    }

    /// Runs `work` of a start in a transaction. Commits if `work` returns `Some`, and rolls back if
    /// it returns `None` or fails.
    pub(crate) async fn transact_with_cleanup<T, F>(
        &self,
        kind: Work,
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
        self.run_with_cleanup(kind, deadline, cleanup, transact).await
    }
}

impl Drop for Database {
    /// A `JoinSet` would abort its tasks.
    fn drop(&mut self) {
        self.settling.get_mut().detach_all();
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
/// PostgreSQL has finished (for at most six seconds): otherwise time-outs would add ever more work
/// to a slow server.
struct CheckedOut<'a> {
    connection: Option<Object<AsyncPgConnection>>,
    permit: Option<Permit>,
    cleanup: Option<Cleanup>,
    database: &'a Database,
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
        // The protocol state is unknown, so the connection does not return to the pool.
        let Some(connection) = self.connection.take().map(Object::take) else { return };
        let abandoned = Abandoned {
            permit: self.permit.take(),
            cleanup: self.cleanup.take(),
            pool: self.database.pool.clone(),
            bulkheads: self.database.bulkheads.clone(),
        };
        self.database.spawn_until_settled(abandoned.settle(connection));
    }
}

fn checkout_error(error: PoolError) -> Error {
    match error {
        PoolError::Backend(ConnectError::ConnectionError(error)) => StoreError::from(error).into(),
        PoolError::Backend(ConnectError::QueryError(error)) => StoreError::from(error).into(),
        error => StoreError::Unavailable(error.into()).into(),
    }
}
