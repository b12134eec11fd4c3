//! The migrations of the schema, embedded in the binary.

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::Bool;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::StoreError;
use crate::connection::connect_without_timeout;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// Key of the advisory lock that each migrating transaction takes: "greenrom" in ASCII.
const ADVISORY_LOCK: i64 = 0x6772_6565_6e72_6f6d;

type Sync = AsyncConnectionWrapper<AsyncPgConnection>;

/// A migration, and whether it has been applied to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationState {
    /// Version and name, such as `2026-11-22-000001_create_organizations`.
    pub name: String,
    /// Whether the database has the migration. False for a pending migration.
    pub applied: bool,
}

/// Applies the pending migrations in one transaction and returns their names, oldest first.
///
/// Several processes may call this at once: one applies the migrations, the others wait for it and
/// then find none pending.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be reached or a migration fails. No migration
/// is applied then.
pub async fn run(url: &str) -> Result<Vec<String>, StoreError> {
    let names = names();
    let applied = under_lock(url, |connection| {
        let versions = connection.run_pending_migrations(MIGRATIONS)?;
        Ok(versions.iter().map(ToString::to_string).collect::<Vec<_>>())
    })
    .await?;
    Ok(named(&names, &applied))
}

/// Reverts the newest `count` migrations in one transaction and returns their names, newest first.
/// If fewer are applied, reverts all of them.
///
/// # Errors
/// Returns a [`StoreError`] if the database cannot be reached or a migration fails. No migration
/// is reverted then.
pub async fn revert(url: &str, count: usize) -> Result<Vec<String>, StoreError> {
    let names = names();
    let reverted = under_lock(url, move |connection| {
        let reverts = connection.applied_migrations()?.len().min(count);
        (0..reverts)
            .map(|_| Ok(connection.revert_last_migration(MIGRATIONS)?.to_string()))
            .collect::<diesel::migration::Result<Vec<_>>>()
    })
    .await?;
    Ok(named(&names, &reverted))
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

/// Replaces each version with the name of its migration.
fn named(names: &[(String, String)], versions: &[String]) -> Vec<String> {
    let name = |version: &String| {
        names.iter().find(|(known, _)| known == version).map_or(version, |(_, name)| name).clone()
    };
    versions.iter().map(name).collect()
}

/// Runs `migrate` in one transaction that holds the advisory lock.
///
/// diesel's migrations are synchronous. `AsyncMigrationHarness` of diesel-async panics on a
/// current-thread runtime, such as the one of an actix-web handler, hence the blocking thread.
async fn under_lock<T: Send + 'static>(
    url: &str,
    migrate: impl FnOnce(&mut Sync) -> diesel::migration::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let connection = connect_without_timeout(url).await?;
    let blocking = tokio::task::spawn_blocking(move || {
        Sync::from(connection).transaction(|connection| {
            connection.batch_execute(&format!("select pg_advisory_xact_lock({ADVISORY_LOCK})"))?;
            migrate(connection).map_err(DieselError::QueryBuilderError)
        })
    });
    let migrated: Result<T, DieselError> =
        blocking.await.map_err(|panic| StoreError::Query(panic.into()))?;
    migrated.map_err(Into::into)
}
