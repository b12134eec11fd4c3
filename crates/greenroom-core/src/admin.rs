//! The service [`Admin`]: work on the database that needs no LiveKit.

use std::sync::Arc;

use greenroom_domain::PoolSize;
use greenroom_store::{
    DatabaseUrl, Reversal, TranslatedMessages, migrate, revert, translated_messages,
};

use crate::clock::Clock;
use crate::database::Database;
use crate::{Error, Greenroom};

/// Maximum number of connections of an [`Admin`] without a [`Greenroom`].
const POOL_SIZE: PoolSize = PoolSize::constant::<2>();

/// Administers the database of a [`Greenroom`]: its schema, the limits of its organizations, and
/// their templates as a set.
///
/// An administrative command needs the URL of the database, and neither LiveKit nor its API key. A
/// method that takes a [`Caller`](crate::Caller) checks the caller, as the methods of [`Greenroom`]
/// do. A method without a caller is for the operator of the deployment: do not run it on behalf of
/// a caller. Clones are cheap and share the connections.
#[derive(Clone)]
pub struct Admin {
    pub(crate) database: Arc<Database>,
    pub(crate) clock: Clock,
}

impl Admin {
    /// Creates the service for a database, with at most two connections.
    ///
    /// Opens no connection: connections are opened when they are first needed.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the connection pool cannot be created.
    pub fn new(database_url: &DatabaseUrl) -> Result<Self, Error> {
        let database = Arc::new(Database::new(database_url, POOL_SIZE)?);
        Ok(Self { database, clock: Clock::System })
    }

    /// Applies the pending migrations, each in its own transaction, and returns their names, oldest
    /// first. A migration may opt out of the transaction, to build an index concurrently.
    ///
    /// Several processes may call this at once: one applies the migrations, the others wait for it
    /// and then find none pending. Uses two connections of its own, on which a statement may take
    /// longer than on the connections of the pool, but waits at most three seconds for a lock.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] with [`StoreError::Migration`](crate::StoreError::Migration) if a
    /// migration fails; the migrations before it stay applied. Returns another [`Error::Store`] if the
    /// database cannot be reached.
    pub async fn migrate(&self) -> Result<Vec<String>, Error> {
        Ok(migrate::run(self.database.url().as_str()).await?)
    }

    /// Returns what [`revert_migrations`](Self::revert_migrations) would revert, newest first, and
    /// the data that would be lost. Changes nothing.
    /// [`RevertConsent`](crate::RevertConsent) decides whether the revert may begin.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database cannot be reached, or if this version does not know
    /// an applied migration.
    pub async fn plan_revert(&self, count: usize) -> Result<Vec<Reversal>, Error> {
        Ok(revert::plan(self.database.url().as_str(), count).await?)
    }

    /// Reverts the newest `count` migrations, each in its own transaction, and returns their names,
    /// newest first. If fewer are applied, reverts all of them. Does not ask before it drops data:
    /// see [`plan_revert`](Self::plan_revert).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`migrate`](Self::migrate).
    pub async fn revert_migrations(&self, count: usize) -> Result<Vec<String>, Error> {
        Ok(migrate::revert(self.database.url().as_str(), count).await?)
    }

    /// Returns the language of PostgreSQL's messages unless it is English. The database's role may
    /// then not set `lc_messages`, and a full disk or a time-out is
    /// [`StoreError::Query`](crate::StoreError::Query).
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database fails, and [`Error::Overloaded`] if no database
    /// connection becomes free in time.
    pub async fn translated_messages(&self) -> Result<Option<TranslatedMessages>, Error> {
        self.database.run(async |db| translated_messages(db).await).await
    }
}

impl Greenroom {
    /// Returns the administration of this service's database. It uses the connections of this
    /// service.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { database: self.shared.database.clone(), clock: self.shared.clock }
    }
}
