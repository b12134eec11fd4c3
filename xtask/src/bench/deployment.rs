//! The deployment that one figure measures: its own LiveKit server, database and service.

use std::path::PathBuf;

use anyhow::Result;
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::Database;
use greenroom_testkit::ports;
use reqwest::Client;
use tokio_postgres::{Client as Postgres, NoTls};

use crate::api::Api;
use crate::service::Service;
use crate::steps::Steps;

/// What all deployments share.
#[derive(Clone)]
pub struct BenchEnv {
    pub program: PathBuf,
    /// The other build of `--against`.
    pub against: Option<PathBuf>,
    /// Number of rounds of `--against` and of the comparison with peers.
    pub rounds: u32,
    /// Number of stored sessions of `bench growth`.
    pub rows: u64,
    /// Whether to measure on a small scale, with a debug build.
    pub is_quick: bool,
    /// The server on which each deployment gets its own database.
    pub database_url: String,
    /// Directory of the logs.
    pub home: PathBuf,
    /// Shared, because building a client takes long.
    pub client: Client,
    /// Prints tables while a figure is measured.
    pub steps: Steps,
}

/// The components of one figure. They are dropped, and so stopped, in this order.
pub struct Deployment {
    pub api: Api,
    pub service: Service,
    pub livekit: Server,
    /// Direct access to the database, for controls.
    pub sql: Postgres,
    database: Database,
}

impl Deployment {
    /// Starts a deployment with these settings in addition to the required ones.
    pub async fn start(env: &BenchEnv, name: &str, more: &[(&str, &str)]) -> Result<Self> {
        let database = Database::fresh_at(env.database_url.clone()).await?;
        Self::start_on(env, name, more, database).await
    }

    /// Does the same as [`Self::start`] on this database.
    pub async fn start_on(
        env: &BenchEnv,
        name: &str,
        more: &[(&str, &str)],
        database: Database,
    ) -> Result<Self> {
        let port = ports::free_tcp_port()?;
        let webhook_urls = vec![format!("http://127.0.0.1:{port}/webhooks/livekit")];
        let options = Options { webhook_urls, ..Options::default() };
        let livekit = Server::start_with(options).await?;
        let (program, home) = (env.program.clone(), env.home.join(name));
        let service = Service::launch(program, port, database.url(), &livekit, &home, more).await?;
        let sql = connect(database.url()).await?;
        let api = Api::of(&service, &env.client);
        Ok(Self { api, service, livekit, sql, database })
    }

    /// Starts another process of the service on this database. Its log is in the directory `name`.
    pub async fn start_replica(
        &self,
        env: &BenchEnv,
        name: &str,
        more: &[(&str, &str)],
    ) -> Result<Service> {
        let (port, program, home) =
            (ports::free_tcp_port()?, env.program.clone(), env.home.join(name));
        Service::launch(program, port, self.database.url(), &self.livekit, &home, more).await
    }

    /// Opens a further connection to the database.
    pub async fn connect(&self) -> Result<Postgres> {
        connect(self.database.url()).await
    }

    /// Returns the single number that a query selects.
    pub async fn number(&self, query: &str) -> Result<i64> {
        Ok(self.sql.query_one(query, &[]).await?.try_get(0)?)
    }
}

/// Opens a connection to a database.
pub async fn connect(url: &str) -> Result<Postgres> {
    let (sql, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(sql)
}
