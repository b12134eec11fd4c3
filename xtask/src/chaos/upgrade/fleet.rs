//! Two replicas of changing versions, and the components that they use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use greenroom_testkit::agent::{Job, ScriptedAgent, Worker};
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::Database;
use greenroom_testkit::ports;
use reqwest::Client;
use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::balancer::{Balancer, REPLICAS};
use crate::api::Api;
use crate::chaos::deployment::AGENT;
use crate::service::{self, Service};

/// Maximum time from SIGTERM until the process has exited (`docs/operations.md`).
const STOP_TIMEOUT: Duration = Duration::from_secs(50);

/// The components are dropped, and so stopped, in this order.
pub struct Fleet {
    services: [Option<Service>; REPLICAS],
    worker: Worker,
    livekit: Server,
    database: Database,
    pub balancer: Arc<Balancer>,
    ports: [u16; REPLICAS],
    home: PathBuf,
    client: Client,
    launches: u32,
}

impl Fleet {
    /// Starts LiveKit, a worker and two replicas of `program`, on a database that it has migrated.
    pub async fn start(server: String, program: &Path, home: PathBuf) -> Result<Self> {
        let ports = [ports::free_tcp_port()?, ports::free_tcp_port()?];
        let webhook_urls = ports.map(|port| format!("http://127.0.0.1:{port}/webhooks/livekit"));
        let options = Options { webhook_urls: webhook_urls.to_vec(), ..Options::default() };
        let (livekit, database) =
            tokio::try_join!(Server::start_with(options), Database::empty_on(server))?;
        let worker = ScriptedAgent::named(AGENT).start(&livekit).await?;
        let mut fleet = Self {
            services: [None, None],
            worker,
            livekit,
            database,
            balancer: Arc::default(),
            ports,
            home,
            client: Client::new(),
            launches: 0,
        };
        fleet.migrate(program, &[]).await?;
        for replica in 0..REPLICAS {
            fleet.launch(replica, program).await?;
        }
        Ok(fleet)
    }

    /// Runs `migrate` of this program.
    pub async fn migrate(&self, program: &Path, arguments: &'static [&'static str]) -> Result<()> {
        let (url, log) = (self.database.url().to_owned(), self.home.join("migrate.log"));
        service::migrate(program.to_owned(), url, log, arguments).await
    }

    /// Stops a replica with SIGTERM while it still gets requests, and starts `program` on its port.
    pub async fn replace(&mut self, replica: usize, program: &Path) -> Result<()> {
        self.balancer.stopping(replica);
        let service = self.services[replica].take().context("the replica is not running")?;
        let stopped = timeout(STOP_TIMEOUT, service.terminate()).await;
        stopped.context("the replica did not exit after SIGTERM")??;
        self.launch(replica, program).await
    }

    async fn launch(&mut self, replica: usize, program: &Path) -> Result<()> {
        self.launches += 1;
        let home = self.home.join(format!("replica-{}", self.launches));
        if self.launches > 1 {
            // All replicas accept the same tokens.
            std::fs::create_dir_all(&home)?;
            let first = self.home.join("replica-1");
            std::fs::copy(first.join("jwt-secret"), home.join("jwt-secret"))?;
        }
        let (port, url) = (self.ports[replica], self.database.url());
        let settings = [("GREENROOM_RECONCILE_SECONDS", "10")];
        let service =
            Service::launch(program.to_owned(), port, url, &self.livekit, &home, &settings).await?;
        self.balancer.started(replica, Api::of(&service, &self.client));
        self.services[replica] = Some(service);
        Ok(())
    }

    /// Connects to the database.
    pub async fn connect(&self) -> Result<tokio_postgres::Client> {
        let (sql, connection) = tokio_postgres::connect(self.database.url(), NoTls).await?;
        tokio::spawn(connection);
        Ok(sql)
    }

    /// Returns the time of PostgreSQL.
    pub async fn now(&self) -> Result<SystemTime> {
        Ok(self.connect().await?.query_one("select clock_timestamp()", &[]).await?.get(0))
    }

    /// Returns access to the same LiveKit.
    pub fn livekit(&self) -> Server {
        let livekit = &self.livekit;
        Server::external(
            livekit.url().to_owned(),
            livekit.api_key().to_owned(),
            livekit.api_secret().to_owned(),
        )
    }

    /// Returns all jobs that the worker has started.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        self.worker.jobs()
    }

    /// Writes the logs of LiveKit and the worker. The replicas have written their own logs.
    pub fn write_logs(&self) -> Result<()> {
        std::fs::write(self.home.join("livekit.log"), self.livekit.output()?)?;
        Ok(std::fs::write(self.home.join("worker.log"), self.worker.output())?)
    }
}
