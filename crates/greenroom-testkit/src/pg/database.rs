//! A database of one test's own.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::{sync::OnceCell, time::timeout};
use tokio_postgres::Client;

use super::{Cluster, apart, aside, connect, url::with_database};
use crate::{env, place};

/// The cluster of this process, when nobody gave us one. Its guard stops it when the process ends.
static SHARED: OnceCell<Cluster> = OnceCell::const_new();

const TO_DROP: Duration = Duration::from_secs(5);

/// A database nobody else uses. Dropping it drops it in PostgreSQL, with the connections that are
/// still open.
#[derive(Debug)]
pub struct Database {
    url: String,
    server: String,
    name: String,
}

impl Database {
    /// A migrated database, on the server of `GREENROOM_TEST_DATABASE_URL` or else on one cluster
    /// per test process.
    ///
    /// # Errors
    /// When PostgreSQL is missing, or a migration fails.
    pub async fn fresh() -> Result<Self> {
        Self::fresh_at(server().await?).await
    }

    /// A database without any tables, on the same server.
    ///
    /// # Errors
    /// When PostgreSQL is missing.
    pub async fn empty() -> Result<Self> {
        Self::empty_on(server().await?).await
    }

    /// A migrated database on a cluster of the test's own, which it may stop.
    ///
    /// # Errors
    /// When a migration fails.
    pub async fn fresh_on(cluster: &Cluster) -> Result<Self> {
        Self::fresh_at(cluster.url("postgres")).await
    }

    /// A migrated database on the server of this URL, whose user may make databases.
    ///
    /// # Errors
    /// When a migration fails.
    pub async fn fresh_at(server: String) -> Result<Self> {
        aside(async move {
            let template = template(&server).await?;
            Self::create(server, &format!("template {template} strategy file_copy")).await
        })
        .await
    }

    /// The URL, for the server's superuser.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name in PostgreSQL.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn empty_on(server: String) -> Result<Self> {
        aside(Self::create(server, String::from("template template0"))).await
    }

    async fn create(server: String, how: impl AsRef<str> + Send) -> Result<Self> {
        let name = format!("greenroom_test_{}", place::random_hex()?);
        let client = connect(&server).await?;
        client.batch_execute(&format!("create database {name} {}", how.as_ref())).await?;
        Ok(Self { url: with_database(&server, &name), server, name })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A server that is gone took its databases with it; one that hangs is given up.
        let _ = apart(async move { timeout(TO_DROP, drop_database(&server, &name)).await? });
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
    let cluster = SHARED.get_or_try_init(Cluster::private).await?;
    Ok(cluster.url("postgres"))
}

/// The migrated database the others are copied from, made by the first who needs it while the
/// others wait.
async fn template(server: &str) -> Result<String> {
    let name =
        format!("greenroom_template_{}", migrations_hash(&place::workspace().join("migrations"))?);
    let client = connect(server).await?;
    client.execute("select pg_advisory_lock(hashtext($1))", &[&name]).await?;
    if !exists(&client, &name).await? {
        // Renamed last: a template of this name is always whole.
        let unfinished = format!("{name}_unfinished");
        client.batch_execute(&format!("drop database if exists {unfinished} with (force)")).await?;
        client.batch_execute(&format!("create database {unfinished} template template0")).await?;
        let migrated = greenroom_store::migrate::run(&with_database(server, &unfinished)).await;
        migrated.context("cannot migrate the template database")?;
        client.batch_execute(&format!("alter database {unfinished} rename to {name}")).await?;
    }
    // The end of the connection frees the lock, too, but only after the reply: say it.
    client.execute("select pg_advisory_unlock(hashtext($1))", &[&name]).await?;
    Ok(name)
}

async fn exists(client: &Client, database: &str) -> Result<bool> {
    Ok(client
        .query_opt("select from pg_database where datname = $1", &[&database])
        .await?
        .is_some())
}

/// Of every file's path and content, so that a change of any migration makes a new template.
fn migrations_hash(directory: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut files = Vec::new();
    for migration in std::fs::read_dir(directory).context("there are no migrations")?.flatten() {
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
