//! A PostgreSQL server with a data directory and port of its own (PostgreSQL: a cluster).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{connect, initdb, spawn_blocking};
use crate::process::{GuardedCommand, Process};
use crate::unix_user::UnixUser;
use crate::{paths, ports, tools, unix_user, wait_until};

/// Maximum time until a server accepts connections after its start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Time between SIGINT (fast shutdown) and SIGKILL.
const STOP_GRACE_PERIOD: Duration = Duration::from_secs(20);

/// Which data survives a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No data, because `fsync`, `synchronous_commit` and `full_page_writes` are off.
    None,
    /// All committed data.
    Full,
}

/// A running PostgreSQL server. Dropping it stops the server.
#[derive(Debug)]
pub struct Cluster {
    /// The directory of `postgres` and `initdb`.
    bin: PathBuf,
    /// The directory of the data, the password and the log.
    directory: PathBuf,
    owner: Option<UnixUser>,
    port: u16,
    password: String,
    durability: Durability,
    is_temporary: bool,
    /// `None` while the server is stopped.
    process: Option<Process>,
}

impl Cluster {
    /// Starts a new cluster without durability for one test. Dropping it removes the data.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is missing or does not start.
    pub async fn temporary() -> Result<Self> {
        Self::create_temporary(Durability::None).await
    }

    /// Starts a new cluster with full durability for measurements. Dropping it removes the data.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is missing or does not start.
    pub async fn temporary_durable() -> Result<Self> {
        Self::create_temporary(Durability::Full).await
    }

    /// Starts the cluster in this directory with full durability. Creates the data if it
    /// does not exist yet, and keeps it when the cluster is dropped.
    ///
    /// If the caller is root, the data may be in another directory: PostgreSQL then runs as an
    /// unprivileged user, which may be unable to access `directory`.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is missing or does not start, or if another server uses the
    /// data.
    pub async fn open_or_create(directory: &Path) -> Result<Self> {
        let owner = unix_user::unprivileged()?;
        let directory = paths::create_accessible_dir(directory, owner)?;
        Self::create(directory, owner, Durability::Full, false).await
    }

    /// Removes the data of the cluster that [`Self::open_or_create`] keeps in this directory.
    ///
    /// # Errors
    /// Returns an error if the data cannot be removed.
    pub fn delete(directory: &Path) -> Result<()> {
        let directory = paths::create_accessible_dir(directory, unix_user::unprivileged()?)?;
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("failed to remove {}", directory.display()))
    }

    /// Starts a standby of this cluster with the same databases and password. It replicates until
    /// [`Self::promote`] is called on it. Dropping it removes its data.
    ///
    /// # Errors
    /// Returns an error if the cluster is not running, or if the standby does not start.
    pub async fn standby(&self) -> Result<Self> {
        let (port, owner, durability) = (self.port, self.owner, self.durability);
        let directory = paths::create_temp_dir("postgres", owner)?;
        spawn_blocking({
            let (directory, bin) = (directory.clone(), self.bin.clone());
            let password = self.password.clone();
            move || initdb::copy(&bin, &directory, port, &password, owner)
        })
        .await?;
        let mut standby = Self {
            bin: self.bin.clone(),
            directory,
            owner,
            port: 0,
            password: self.password.clone(),
            durability,
            is_temporary: true,
            process: None,
        };
        standby.start_on_free_port().await?;
        Ok(standby)
    }

    /// Makes a standby accept writes. Returns when it does, after at most 60 seconds.
    ///
    /// # Errors
    /// Returns an error if this cluster is no standby.
    pub async fn promote(&self) -> Result<()> {
        connect(&self.url("postgres")).await?.batch_execute("select pg_promote()").await?;
        Ok(())
    }

    async fn create_temporary(durability: Durability) -> Result<Self> {
        let owner = unix_user::unprivileged()?;
        let directory = paths::create_temp_dir("postgres", owner)?;
        Self::create(directory, owner, durability, true).await
    }

    async fn create(
        directory: PathBuf,
        owner: Option<UnixUser>,
        durability: Durability,
        is_temporary: bool,
    ) -> Result<Self> {
        let (bin, password) = spawn_blocking({
            let directory = directory.clone();
            move || {
                let bin = tools::postgres::bin_directory()?;
                initdb::initialize(&bin, &directory, owner, durability)?;
                Ok((bin, std::fs::read_to_string(directory.join("password"))?))
            }
        })
        .await?;
        let mut cluster = Self {
            bin,
            directory,
            owner,
            port: 0,
            password,
            durability,
            is_temporary,
            process: None,
        };
        cluster.start_on_free_port().await?;
        Ok(cluster)
    }

    /// Returns the URL of a database for the superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Creates a database if it does not exist, and returns its URL for the superuser.
    ///
    /// # Errors
    /// Returns an error if the database cannot be created.
    pub async fn ensure_database(&self, name: &str) -> Result<String> {
        let client = connect(&self.url("postgres")).await?;
        if client.query_opt("select from pg_database where datname = $1", &[&name]).await?.is_none()
        {
            client.batch_execute(&format!("create database {name}")).await?;
        }
        Ok(self.url(name))
    }

    /// Returns the server's port, which stays the same after [`Self::stop`] and [`Self::start`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the server's log so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// Stops the server with a fast shutdown, which closes the connections and keeps committed
    /// data.
    ///
    /// # Errors
    /// Returns an error if the server is not running.
    pub async fn stop(&mut self) -> Result<()> {
        self.terminate_with("INT").await
    }

    /// Stops the server with an immediate shutdown, which has the effect of a crash.
    ///
    /// # Errors
    /// Returns an error if the server is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.terminate_with("QUIT").await
    }

    /// Makes the server hang until [`Self::resume`]: connections stay open, but the server does not
    /// respond.
    ///
    /// # Errors
    /// Returns an error if the server is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal_all("STOP")
    }

    /// Makes the server continue after [`Self::pause`].
    ///
    /// # Errors
    /// Returns an error if the server is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal_all("CONT")
    }

    /// Signals the server process, which accepts connections, and the backend process of each
    /// connection. A signal to the server's process group would miss the backends, because each
    /// backend has a separate process group.
    fn signal_all(&self, signal: &str) -> Result<()> {
        self.process.as_ref().context("the cluster is stopped")?.signal(signal)?;
        let pid_file = std::fs::read_to_string(self.directory.join("data/postmaster.pid"))?;
        let server = pid_file.lines().next().context("postmaster.pid is empty")?;
        // Ignore the exit status: `pkill` reports a failure if there are no backends.
        Command::new("pkill").args([&format!("-{signal}"), "-P", server]).status()?;
        Ok(())
    }

    /// Starts the server again with the same port and data.
    ///
    /// # Errors
    /// Returns an error if the server exits, or does not accept connections within 20 seconds.
    pub async fn start(&mut self) -> Result<()> {
        let mut process = self.server_command().start()?;
        let url = self.url("postgres");
        let ready =
            wait_until("PostgreSQL to accept connections", START_TIMEOUT, || {
                // Stop waiting if the server has exited. `ensure_running` below returns the error.
                let has_exited = process.has_exited();
                let url = &url;
                async move {
                    if has_exited { Ok(Some(())) } else { connect(url).await.map(|_| Some(())) }
                }
            })
            .await;
        process.ensure_running()?;
        ready?;
        self.process = Some(process);
        Ok(())
    }

    async fn start_on_free_port(&mut self) -> Result<()> {
        // Retry, because another process may take a free port before the server binds it.
        for _ in 0..2 {
            self.port = ports::free_tcp_port()?;
            if self.start().await.is_ok() {
                return Ok(());
            }
        }
        self.port = ports::free_tcp_port()?;
        self.start().await
    }

    async fn terminate_with(&mut self, signal: &'static str) -> Result<()> {
        let process = self.process.take().context("the cluster is stopped")?;
        spawn_blocking(move || process.terminate_with(signal)).await
    }

    fn server_command(&self) -> GuardedCommand {
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
        let log = self.directory.join("postgres.log");
        let command = GuardedCommand::new("postgres", self.bin.join("postgres"), log)
            .args(["-D".as_ref(), self.directory.join("data").as_os_str()])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .current_dir(&self.directory)
            .run_as(self.owner)
            .stop_signal("INT", STOP_GRACE_PERIOD);
        if self.is_temporary { command.remove_on_stop(&self.directory) } else { command }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.process.take());
        if self.is_temporary {
            // The guard has removed the directory, unless `stop` or `kill` was called before.
            std::fs::remove_dir_all(&self.directory).ok();
        }
    }
}
