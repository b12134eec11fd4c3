//! The schema's migrations, embedded in the program.

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::StoreError;
use crate::connection::connect_without_timeout;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// Taken, within the transaction, by whoever migrates; a number nobody else uses.
const ADVISORY_LOCK: i64 = 0x6772_6565_6e72_6f6d;

type Sync = AsyncConnectionWrapper<AsyncPgConnection>;

/// A migration, and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    pub name: String,
    pub applied: bool,
}

/// Applies what is missing, all or nothing, and names what it applied. Any number of processes may
/// do so at once: the others wait, and find nothing left to do.
///
/// # Errors
/// When the database cannot be reached or refuses a statement; then nothing has changed.
pub async fn run(url: &str) -> Result<Vec<String>, StoreError> {
    let names = names();
    let applied = under_lock(url, |connection| {
        let versions = connection.run_pending_migrations(MIGRATIONS)?;
        Ok(versions.iter().map(ToString::to_string).collect::<Vec<_>>())
    })
    .await?;
    Ok(named(&names, &applied))
}

/// Takes back the newest `count` migrations, all or nothing, and names them.
///
/// # Errors
/// As [`run`].
pub async fn revert(url: &str, count: usize) -> Result<Vec<String>, StoreError> {
    let names = names();
    let reverted = under_lock(url, move |connection| {
        let there = connection.applied_migrations()?.len().min(count);
        (0..there)
            .map(|_| Ok(connection.revert_last_migration(MIGRATIONS)?.to_string()))
            .collect::<diesel::migration::Result<Vec<_>>>()
    })
    .await?;
    Ok(named(&names, &reverted))
}

/// Every migration of this program, oldest first.
///
/// # Errors
/// When the database cannot be reached.
pub async fn status(url: &str) -> Result<Vec<MigrationState>, StoreError> {
    state(&mut connect_without_timeout(url).await?).await
}

/// As [`status`], on a connection one has.
///
/// # Errors
/// When the database cannot be reached.
pub async fn state(connection: &mut AsyncPgConnection) -> Result<Vec<MigrationState>, StoreError> {
    let applied = applied(connection).await?;
    Ok(names()
        .into_iter()
        .map(|(version, name)| MigrationState { applied: applied.contains(&version), name })
        .collect())
}

async fn applied(connection: &mut AsyncPgConnection) -> Result<Vec<String>, StoreError> {
    use diesel::sql_types::Bool;

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

fn named(names: &[(String, String)], versions: &[String]) -> Vec<String> {
    let name = |version: &String| {
        names.iter().find(|(known, _)| known == version).map_or(version, |(_, name)| name).clone()
    };
    versions.iter().map(name).collect()
}

/// Runs `migrate` in one transaction that holds the lock.
///
/// diesel's migrations are synchronous, and its own bridge panics on a current-thread runtime,
/// which is what actix-web's handlers run on; a blocking thread is at home in both.
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
    let migrated: Result<T, DieselError> = blocking
        .await
        .map_err(|panic| StoreError::Query(DieselError::QueryBuilderError(panic.into())))?;
    migrated.map_err(Into::into)
}
