//! The pool of connections: the only one, and the only place that bounds how long a query takes.

use std::time::Duration;

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::{Pool, PoolError};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as ConnectError, RecyclingMethod,
};
use greenroom_store::{StoreError, connect};
use secrecy::{ExposeSecret, SecretString};

use crate::Error;

/// How long to wait for a connection, a new one's three seconds included.
const CHECKOUT: Duration = Duration::from_secs(4);

/// How long the work on a connection may take: a little more than PostgreSQL's own time-out of one
/// statement, so that this ends only what PostgreSQL cannot, being gone without a word.
const WORK: Duration = Duration::from_millis(5500);

pub(crate) struct Database {
    pool: Pool<AsyncPgConnection>,
}

impl Database {
    /// A pool of at most `size` connections, none of them open yet.
    pub(crate) fn new(url: &SecretString, size: usize) -> Result<Self, Error> {
        let mut config = ManagerConfig::default();
        // The default sends a query before each use. A connection known to be closed is dropped
        // either way; one that is not known to be answers the query itself with an error.
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(|url| Box::pin(connect(url)));
        let manager = AsyncDieselConnectionManager::new_with_config(url.expose_secret(), config);
        let pool = Pool::builder(manager).max_size(size).build();
        let pool = pool.map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(Self { pool })
    }

    /// Runs `work` on a connection of its own.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: AsyncFnOnce(&mut AsyncPgConnection) -> Result<T, StoreError>,
    {
        let mut connection = match tokio::time::timeout(CHECKOUT, self.pool.get()).await {
            Ok(connection) => connection.map_err(checkout_error)?,
            Err(_) => return Err(Error::Overloaded),
        };
        if let Ok(done) = tokio::time::timeout(WORK, work(&mut connection)).await {
            return Ok(done?);
        }
        // Half-way through a write nobody knows what is on the wire: the connection goes.
        drop(diesel_async::pooled_connection::deadpool::Object::take(connection));
        Err(StoreError::Unavailable("no answer in time".into()).into())
    }
}

fn checkout_error(error: PoolError) -> Error {
    match error {
        PoolError::Backend(ConnectError::ConnectionError(error)) => StoreError::from(error).into(),
        PoolError::Backend(ConnectError::QueryError(error)) => StoreError::from(error).into(),
        error => StoreError::Unavailable(error.into()).into(),
    }
}
