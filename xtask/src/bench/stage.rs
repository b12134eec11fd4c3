//! What one figure is measured on: a LiveKit, a database and a service of its own.

use std::path::PathBuf;

use anyhow::Result;
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::Database;
use greenroom_testkit::place;
use reqwest::Client;
use tokio_postgres::{Client as Postgres, NoTls};

use crate::api::Api;
use crate::service::Service;

/// What all stages are set on.
#[derive(Clone)]
pub struct Ground {
    pub program: PathBuf,
    /// Another Greenroom to be measured against.
    pub against: Option<PathBuf>,
    /// The server on which each stage has a database of its own.
    pub database_url: String,
    /// Where logs go.
    pub home: PathBuf,
    /// By which all call: to make one takes long.
    pub client: Client,
}

/// One figure's parts. They are stopped in this order.
pub struct Stage {
    pub api: Api,
    pub service: Service,
    pub livekit: Server,
    /// The stage's database, past Greenroom, for what is held against what it says.
    pub sql: Postgres,
    _database: Database,
}

impl Stage {
    /// Sets a stage with these settings beside those that are needed.
    pub async fn set(ground: &Ground, name: &str, more: &[(&str, &str)]) -> Result<Self> {
        let port = place::free_tcp_port()?;
        let webhook_urls = vec![format!("http://127.0.0.1:{port}/webhooks/livekit")];
        let options = Options { webhook_urls, ..Options::default() };
        let (livekit, database) = tokio::try_join!(
            Server::start_with(options),
            Database::fresh_at(ground.database_url.clone())
        )?;
        let (program, home) = (ground.program.clone(), ground.home.join(name));
        let service = Service::launch(program, port, database.url(), &livekit, &home, more).await?;
        let (sql, connection) = tokio_postgres::connect(database.url(), NoTls).await?;
        tokio::spawn(connection);
        let api = Api::of(&service, &ground.client);
        Ok(Self { api, service, livekit, sql, _database: database })
    }

    /// The one number that a query answers.
    pub async fn number(&self, query: &str) -> Result<i64> {
        Ok(self.sql.query_one(query, &[]).await?.try_get(0)?)
    }
}
