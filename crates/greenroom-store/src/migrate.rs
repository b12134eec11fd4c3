//! The migrations of the schema, embedded in the binary.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::Bool;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::sleep;

use crate::StoreError;
use crate::connection::connect_without_timeout;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// Maximum time that a statement of a migration waits for a lock. The statements of other
/// transactions on the same table wait behind it, and a request fails after 4.5 s.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between two attempts to take the advisory lock.
const ACQUIRE_INTERVAL: Duration = Duration::from_millis(100);

const LOCK_ADVICE: &str = "; if PostgreSQL reports a lock timeout, end the transactions that `select \
    pid, state, query from pg_stat_activity where xact_start < now() - interval '3 seconds'` lists, or \
    wait until they finish, and run the migrations again";

const UNFINISHED_ADVICE: &str = "; it runs outside a transaction, so drop the unfinished object, such \
    as an index that `\\d` of psql marks as invalid, and run the migrations again";

/// Key of the advisory lock that each migrating process takes: "greenrom" in ASCII.
const ADVISORY_LOCK: i64 = 0x6772_6565_6e72_6f6d;

type SyncConnection = AsyncConnectionWrapper<AsyncPgConnection>;

/// A migration, and whether it has been applied to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationState {
    /// Version and name, such as `2026-11-22-000001_create_organizations`.
    pub name: String,
    /// Whether the database has the migration. False for a pending migration.
    pub applied: bool,
}

/// Applies the pending migrations and returns their names, oldest first. Each migration has its own
/// transaction, unless its `metadata.toml` contains `run_in_transaction = false`.
///
/// Several processes may call this at once: one applies the migrations, the others wait for it and
/// then find none pending.
///
/// # Errors
/// Returns [`StoreError::Migration`] if a migration fails, for example because it waited more than
/// three seconds for a lock, and another [`StoreError`] if the database cannot be reached.
pub async fn run(url: &str) -> Result<Vec<String>, StoreError> {
    run_source(url, MIGRATIONS).await
}

/// Like [`run`], for other migrations.
///
/// # Errors
/// Returns the errors of [`run`].
pub async fn run_source(
    url: &str,
    source: impl MigrationSource<Pg> + Send + 'static,
) -> Result<Vec<String>, StoreError> {
    under_lock(url, |connection| {
        let pending = connection.pending_migrations(source).map_err(StoreError::Query)?;
        let apply = |migration: Box<dyn Migration<Pg>>| {
            execute(connection, &*migration, |connection| {
                connection.run_migration(&*migration).map(drop)
            })
        };
        pending.into_iter().map(apply).collect()
    })
    .await
}

/// Reverts the newest `count` migrations, each in its own transaction, and returns their names,
/// newest first. If fewer are applied, reverts all of them.
///
/// # Errors
/// Returns the errors of [`run`], and [`StoreError::Query`] if this version does not know an applied
/// migration.
pub async fn revert(url: &str, count: usize) -> Result<Vec<String>, StoreError> {
    revert_source(url, count, MIGRATIONS).await
}

/// Like [`revert`], for other migrations.
///
/// # Errors
/// Returns the errors of [`revert`].
pub async fn revert_source(
    url: &str,
    count: usize,
    source: impl MigrationSource<Pg> + Send + 'static,
) -> Result<Vec<String>, StoreError> {
    under_lock(url, move |connection| {
        let known = source.migrations().map_err(StoreError::Query)?;
        let applied = connection.applied_migrations().map_err(StoreError::Query)?;
        let revert = |version: &MigrationVersion<'_>| {
            let migration = known.iter().find(|known| known.name().version() == *version);
            let unknown = || format!("no migration {version} is known; a newer version applied it");
            let migration = migration.ok_or_else(|| StoreError::Query(unknown().into()))?;
            execute(connection, migration, |connection| {
                connection.revert_migration(migration).map(drop)
            })
        };
        applied.iter().take(count).map(revert).collect()
    })
    .await
}

/// The state of each embedded migration, oldest first.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be reached or the query fails.
pub async fn status(url: &str) -> Result<Vec<MigrationState>, StoreError> {
    state(&mut connect_without_timeout(url).await?).await
}

/// Like [`status`], on an existing connection.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn state(connection: &mut AsyncPgConnection) -> Result<Vec<MigrationState>, StoreError> {
    let applied = applied(connection).await?;
    Ok(names()
        .into_iter()
        .map(|(version, name)| MigrationState { applied: applied.contains(&version), name })
        .collect())
}

/// The versions of the newest `count` applied migrations, newest first.
pub(crate) async fn newest_applied(
    connection: &mut AsyncPgConnection,
    count: usize,
) -> Result<Vec<String>, StoreError> {
    let mut versions = applied(connection).await?;
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.truncate(count);
    Ok(versions)
}

/// The versions of the applied migrations. Empty before the first migration, which creates the
/// table.
async fn applied(connection: &mut AsyncPgConnection) -> Result<Vec<String>, StoreError> {
    diesel::table! {
        __diesel_schema_migrations (version) {
            version -> Text,
        }
    }
    let exists = diesel::dsl::sql::<Bool>("to_regclass('__diesel_schema_migrations') is not null");
    if !diesel::select(exists).get_result::<bool>(connection).await? {
        return Ok(Vec::new());
    }
    let versions = __diesel_schema_migrations::table.select(__diesel_schema_migrations::version);
    Ok(versions.load(connection).await?)
}

/// Version and name of every embedded migration, oldest first.
fn names() -> Vec<(String, String)> {
    let migrations: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations().unwrap_or_default();
    let mut names: Vec<_> = migrations
        .iter()
        .map(|migration| (migration.name().version().to_string(), migration.name().to_string()))
        .collect();
    names.sort();
    names
}

/// Executes a migration with a limited wait for locks, and returns its name.
fn execute(
    connection: &mut SyncConnection,
    migration: &dyn Migration<Pg>,
    apply: impl FnOnce(&mut SyncConnection) -> diesel::migration::Result<()>,
) -> Result<String, StoreError> {
    let (name, began) = (migration.name().to_string(), Instant::now());
    if !migration.metadata().run_in_transaction() {
        // Statements outside a transaction, such as `create index concurrently`, wait for other
        // transactions without blocking them.
        let result = apply(connection);
        let advice = UNFINISHED_ADVICE;
        return match result {
            Ok(()) => Ok(name),
            Err(cause) => Err(StoreError::Migration { name, advice, cause }),
        };
    }
    let set_timeout = format!("set local lock_timeout = {}", LOCK_TIMEOUT.as_millis());
    let result = connection.transaction(|connection| {
        SimpleConnection::batch_execute(connection, &set_timeout)?;
        apply(connection).map_err(DieselError::QueryBuilderError)
    });
    // diesel does not keep the SQLSTATE. A migration that failed sooner did not fail because of a
    // lock timeout.
    let advice = if began.elapsed() < LOCK_TIMEOUT { "" } else { LOCK_ADVICE };
    match result {
        Ok(()) => Ok(name),
        Err(DieselError::QueryBuilderError(cause)) => {
            Err(StoreError::Migration { name, advice, cause })
        }
        Err(error) => Err(StoreError::Migration { name, advice, cause: error.into() }),
    }
}

/// Runs `migrate` while no other process does.
///
/// diesel's migrations are synchronous. `AsyncMigrationHarness` of diesel-async panics on a
/// current-thread runtime, such as the one of an actix-web handler, hence the blocking thread.
async fn under_lock<T: Send + 'static>(
    url: &str,
    migrate: impl FnOnce(&mut SyncConnection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let mut lock = connect_without_timeout(url).await?;
    acquire_lock(&mut lock).await?;
    let connection = connect_without_timeout(url).await?;
    let blocking =
        tokio::task::spawn_blocking(move || migrate(&mut SyncConnection::from(connection)));
    let migrated = blocking.await.map_err(|error| StoreError::Query(error.into()))?;
    // Release the lock now: PostgreSQL may notice a closed connection late.
    lock.batch_execute("rollback").await?;
    migrated
}

/// Opens a transaction that holds the advisory lock.
///
/// The transaction has its own connection, because some migrations run outside a transaction, and a
/// pooler may assign another session to each transaction. Polls the lock instead of waiting for it
/// in PostgreSQL: the holder's `create index concurrently` would wait for the waiting statement,
/// and neither would finish.
async fn acquire_lock(connection: &mut AsyncPgConnection) -> Result<(), StoreError> {
    let locked = diesel::dsl::sql::<Bool>(&format!("pg_try_advisory_xact_lock({ADVISORY_LOCK})"));
    loop {
        connection.batch_execute("begin").await?;
        if diesel::select(locked.clone()).get_result(connection).await? {
            // Closes the portal of the previous statement. `create index concurrently` would wait for
            // its snapshot.
            connection.batch_execute("select").await?;
            return Ok(());
        }
        connection.batch_execute("rollback").await?;
        sleep(ACQUIRE_INTERVAL).await;
    }
}
