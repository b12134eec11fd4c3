//! A separate database for each test, copied from a migrated template.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::url::with_database;
use super::{Cluster, block_on_new_runtime, connect, run_on_new_runtime};
use crate::{env, paths, random_hex};

/// The cluster that all tests of this process share. Its guard stops it when the process ends.
static SHARED: OnceCell<Cluster> = OnceCell::const_new();

/// Maximum time for `drop database`. It bounds how long a test waits for a hanging server.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// A database that only one test uses. Dropping it closes the open connections and drops the
/// database in PostgreSQL.
#[derive(Debug)]
pub struct Database {
    url: String,
    server: String,
    name: String,
}

impl Database {
    /// Creates a migrated database. Its server is the one of `GREENROOM_TEST_DATABASE_URL`, or, if
    /// this variable is not set, a cluster that is started once per test process.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is missing or a migration fails.
    pub async fn fresh() -> Result<Self> {
        Self::fresh_at(server().await?).await
    }

    /// Creates a database without tables on the same server as [`Self::fresh`].
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is missing.
    pub async fn empty() -> Result<Self> {
        Self::empty_on(server().await?).await
    }

    /// Creates a migrated database on a cluster that the test can stop.
    ///
    /// # Errors
    /// Returns an error if a migration fails.
    pub async fn fresh_on(cluster: &Cluster) -> Result<Self> {
        Self::fresh_at(cluster.url("postgres")).await
    }

    /// Creates a migrated database on the server with this URL. The URL's user needs the right to
    /// create databases.
    ///
    /// # Errors
    /// Returns an error if a migration fails.
    pub async fn fresh_at(server: String) -> Result<Self> {
        run_on_new_runtime(async move {
            let template = ensure_template(&server).await?;
            Self::create(server, &format!("template {template} strategy file_copy")).await
        })
        .await
    }

    /// Returns the URL for the user of the server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the database's name in PostgreSQL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates a database without tables on the server with this URL.
    ///
    /// # Errors
    /// Returns an error if the server refuses it.
    pub async fn empty_on(server: String) -> Result<Self> {
        run_on_new_runtime(Self::create(server, String::from("template template0"))).await
    }

    async fn create(server: String, options: impl AsRef<str> + Send) -> Result<Self> {
        let name = format!("greenroom_test_{}", random_hex()?);
        let client = connect(&server).await?;
        client.batch_execute(&format!("create database {name} {}", options.as_ref())).await?;
        Ok(Self { url: with_database(&server, &name), server, name })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // Ignore errors: a stopped temporary server has lost its databases, and a hanging server
        // runs into the timeout.
        let _ = block_on_new_runtime(async move {
            timeout(DROP_TIMEOUT, drop_database(&server, &name)).await?
        });
    }
}

async fn drop_database(server: &str, name: &str) -> Result<()> {
    let client = connect(server).await?;
    Ok(client.batch_execute(&format!("drop database if exists {name} with (force)")).await?)
}

async fn server() -> Result<String> {
    if let Some(url) = env::text("GREENROOM_TEST_DATABASE_URL") {
        return Ok(url);
    }
    let cluster = SHARED.get_or_try_init(Cluster::temporary).await?;
    Ok(cluster.url("postgres"))
}

/// Returns the name of the migrated database from which the others are copied, and creates it if it
/// does not exist. An advisory lock makes other processes wait meanwhile.
async fn ensure_template(server: &str) -> Result<String> {
    let migrations = paths::workspace_root().join("migrations");
    let name = format!("greenroom_template_{}", migrations_hash(&migrations)?);
    let client = connect(server).await?;
    client.execute("select pg_advisory_lock(hashtext($1))", &[&name]).await?;
    if !exists(&client, &name).await? {
        // Migrate under another name and rename last, so that a template is always complete.
        let unfinished = format!("{name}_unfinished");
        client.batch_execute(&format!("drop database if exists {unfinished} with (force)")).await?;
        client.batch_execute(&format!("create database {unfinished} template template0")).await?;
        let migrated = greenroom_store::migrate::run(&with_database(server, &unfinished)).await;
        migrated.context("failed to migrate the template database")?;
        client.batch_execute(&format!("alter database {unfinished} rename to {name}")).await?;
    }
    // Closing the connection also releases the lock, but only some time after this function
    // returns. Release it explicitly.
    client.execute("select pg_advisory_unlock(hashtext($1))", &[&name]).await?;
    Ok(name)
}

async fn exists(client: &Client, database: &str) -> Result<bool> {
    Ok(client
        .query_opt("select from pg_database where datname = $1", &[&database])
        .await?
        .is_some())
}

/// Returns a hash of the paths and contents of all migrations. A changed migration therefore gets a
/// new template.
fn migrations_hash(directory: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut files = Vec::new();
    let migrations = std::fs::read_dir(directory)
        .with_context(|| format!("failed to read {}", directory.display()))?;
    for migration in migrations.flatten() {
        files.extend(
            std::fs::read_dir(migration.path())
                .into_iter()
                .flatten()
                .flatten()
                .map(|file| file.path()),
        );
    }
    files.sort_unstable();
    for file in files {
        hash.update(file.strip_prefix(directory)?.to_string_lossy().as_bytes());
        hash.update(std::fs::read(&file)?);
    }
    Ok(format!("{:x}", hash.finalize())[..16].to_owned())
}
