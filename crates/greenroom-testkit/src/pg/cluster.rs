//! One PostgreSQL server with its data, on a port of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{blocking, connect, initdb};
use crate::{
    place::{self, Owner},
    process::{Guarded, Process},
    tools, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What of the data must outlive a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: `fsync` and its like are off, for tests.
    None,
    /// Everything that was committed.
    Full,
}

/// A running PostgreSQL server. Dropping it stops it.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    home: PathBuf,
    owner: Option<Owner>,
    port: u16,
    password: String,
    durability: Durability,
    temporary: bool,
    process: Option<Process>,
}

impl Cluster {
    /// A new cluster for one test, without durability, which is removed when dropped.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub async fn private() -> Result<Self> {
        let owner = place::unprivileged()?;
        Self::create(place::temporary("postgres", owner)?, owner, Durability::None, true).await
    }

    /// The same with full durability, for what is measured.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start.
    pub async fn durable() -> Result<Self> {
        let owner = place::unprivileged()?;
        Self::create(place::temporary("postgres", owner)?, owner, Durability::Full, true).await
    }

    /// The cluster kept in this directory, made when there is none yet, with full durability.
    ///
    /// As root the data may be elsewhere: PostgreSQL then runs as an unprivileged user, who must be
    /// able to reach it.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not start, or another one runs on the same data.
    pub async fn kept_in(directory: &Path) -> Result<Self> {
        let owner = place::unprivileged()?;
        Self::create(place::reachable(directory, owner)?, owner, Durability::Full, false).await
    }

    /// Removes the cluster kept in this directory, with its data.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(directory: &Path) -> Result<()> {
        let home = place::reachable(directory, place::unprivileged()?)?;
        std::fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))
    }

    async fn create(
        home: PathBuf,
        owner: Option<Owner>,
        durability: Durability,
        temporary: bool,
    ) -> Result<Self> {
        let (bin, password) = blocking({
            let home = home.clone();
            move || {
                let bin = tools::postgres::bin_directory()?;
                initdb::initialise(&bin, &home, owner, durability)?;
                Ok((bin, std::fs::read_to_string(home.join("password"))?))
            }
        })
        .await?;
        let mut cluster =
            Self { bin, home, owner, port: 0, password, durability, temporary, process: None };
        cluster.start_on_a_free_port().await?;
        Ok(cluster)
    }

    /// The URL of a database on it, for its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The URL of a database on it, which is made when there is none of this name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn database(&self, name: &str) -> Result<String> {
        let client = connect(&self.url("postgres")).await?;
        if client.query_opt("select from pg_database where datname = $1", &[&name]).await?.is_none()
        {
            client.batch_execute(&format!("create database {name}")).await?;
        }
        Ok(self.url(name))
    }

    /// The port it listens on, the same after [`Self::stop`] and [`Self::start`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Stops it at once, as a fast shutdown: connections are cut, nothing that was committed is
    /// lost.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn stop(&mut self) -> Result<()> {
        self.end_by("INT").await
    }

    /// Kills the server without any warning, as a crash does.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.end_by("QUIT").await
    }

    /// Makes it hang (connections stay open and nothing answers) until [`Self::resume`].
    ///
    /// # Errors
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal_all("STOP")
    }

    /// Lets a hanging server go on.
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal_all("CONT")
    }

    /// The server process accepts connections; each session is a process of its own, in a group of
    /// its own.
    fn signal_all(&self, signal: &str) -> Result<()> {
        self.process.as_ref().context("the cluster is stopped")?.signal(signal)?;
        let pid_file = std::fs::read_to_string(self.home.join("data/postmaster.pid"))?;
        let server = pid_file.lines().next().context("postmaster.pid is empty")?;
        // It fails when there is no session to be signalled, which is fine.
        Command::new("pkill").args([&format!("-{signal}"), "-P", server]).status()?;
        Ok(())
    }

    /// Starts it again, on the same port with the same data.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(&mut self) -> Result<()> {
        let mut process = self.server().start()?;
        let url = self.url("postgres");
        let up = wait_until("PostgreSQL to accept connections", PATIENCE, || {
            // A server that died will never accept: that is found, too, and told below.
            let dead = process.has_ended();
            let url = &url;
            async move { if dead { Ok(Some(())) } else { connect(url).await.map(|_| Some(())) } }
        })
        .await;
        process.check()?;
        up?;
        self.process = Some(process);
        Ok(())
    }

    async fn start_on_a_free_port(&mut self) -> Result<()> {
        // Another process may take the port between our finding it free and the server's binding
        // it.
        for _ in 0..2 {
            self.port = place::free_tcp_port()?;
            if self.start().await.is_ok() {
                return Ok(());
            }
        }
        self.port = place::free_tcp_port()?;
        self.start().await
    }

    async fn end_by(&mut self, signal: &'static str) -> Result<()> {
        let process = self.process.take().context("the cluster is stopped")?;
        blocking(move || process.end_by(signal)).await
    }

    fn server(&self) -> Guarded {
        let mut settings = vec![
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=200".to_owned(),
        ];
        if self.durability == Durability::None {
            settings.extend(
                ["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned),
            );
        }
        let server =
            Guarded::new("postgres", self.bin.join("postgres"), self.home.join("postgres.log"))
                .args(["-D".as_ref(), self.home.join("data").as_os_str()])
                .args(settings.iter().flat_map(|setting| ["-c", setting]))
                .in_directory(&self.home)
                .as_owner(self.owner)
                .stopped_by("INT", PATIENCE);
        if self.temporary { server.removing(&self.home) } else { server }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.process.take());
        if self.temporary {
            // The guard did it already, unless the cluster was stopped before.
            std::fs::remove_dir_all(&self.home).ok();
        }
    }
}
