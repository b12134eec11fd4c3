//! One target of the comparison, and the measurement of one of its cells.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use greenroom_testkit::wait_until;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::load::{self, Answers};
use super::pgbench::{self, Pgbench};
use super::sample::{Costs, Sample, Work};
use super::service::Peer;
use super::{Cell, GREENROOM};
use crate::api::{ORGANIZATION, text};
use crate::bench::deployment::{BenchEnv, Deployment};
use crate::bench::process;

/// Load before each cell, which fills pools and caches.
const WARM_UP: Duration = Duration::from_millis(250);

/// Time limit for Greenroom's keeper to check all sessions that are due.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The started sessions.
const ROWS: &str = "select count(*) from sessions where status <> 'failed'";

const DUE: &str = "select count(*) from sessions where next_check_at <= now()";

const START: &str = "/api/v1/sessions/start";

/// A service or pgbench, with direct access to its database.
pub struct Target {
    name: &'static str,
    source: Source,
    /// Processes whose CPU time is measured: those of the service and of LiveKit.
    server: Option<u32>,
    livekit: Option<u32>,
    sql: Arc<Client>,
    backend: u32,
}

#[derive(Clone)]
enum Source {
    Http(Arc<Requests>),
    Pgbench(Arc<Pgbench>),
}

/// The prepared requests to a service.
struct Requests {
    address: String,
    start: Vec<u8>,
    get: Vec<u8>,
    list: Vec<u8>,
}

impl Target {
    pub async fn greenroom(
        env: &BenchEnv,
        deployment: &Deployment,
        template: &str,
    ) -> Result<Self> {
        let service = &deployment.service;
        let token = service.token_of(ORGANIZATION);
        let requests = Requests::new(env, service.address(), &token, template).await?;
        let (server, livekit) = (Some(service.pid()?), Some(deployment.livekit.guard_id()?));
        let source = Source::Http(Arc::new(requests));
        Self::new(GREENROOM, source, server, livekit, deployment.connect().await?).await
    }

    pub async fn peer(
        env: &BenchEnv,
        name: &'static str,
        peer: &Peer,
        livekit: u32,
        template: &str,
    ) -> Result<Self> {
        let requests = Requests::new(env, &peer.address, &peer.token, template).await?;
        let source = Source::Http(Arc::new(requests));
        Self::new(name, source, Some(peer.guard_id()), Some(livekit), peer.connect().await?).await
    }

    pub async fn pgbench(name: &'static str, pgbench: Pgbench) -> Result<Self> {
        let sql = pgbench.connect().await?;
        Self::new(name, Source::Pgbench(Arc::new(pgbench)), None, None, sql).await
    }

    async fn new(
        name: &'static str,
        source: Source,
        server: Option<u32>,
        livekit: Option<u32>,
        sql: Client,
    ) -> Result<Self> {
        let backend: i32 = sql.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
        let backend = u32::try_from(backend)?;
        Ok(Self { name, source, server, livekit, sql: Arc::new(sql), backend })
    }

    pub fn supports(&self, cell: &Cell) -> bool {
        match self.source {
            Source::Http(_) => true,
            Source::Pgbench(_) => {
                cell.work == Work::Start && cell.connections <= pgbench::MAX_CONNECTIONS
            }
        }
    }

    /// Measures a cell. Fails if the database does not contain exactly the sessions of the answers.
    pub async fn sample(&self, cell: &Cell, duration: Duration) -> Result<Sample> {
        // pgbench opens new connections in each run, so a warm-up would have no effect.
        if matches!(self.source, Source::Http(_)) {
            self.run(cell, WARM_UP).await?;
        }
        self.settle().await?;
        let (rows, before) = (self.rows().await?, self.costs()?);
        let answers = self.run(cell, duration).await?;
        let costs = self.costs()?.since(&before);
        let stored = self.rows().await? - rows;
        let per_answer = match &self.source {
            Source::Http(_) => 1,
            Source::Pgbench(pgbench) => pgbench.rows,
        };
        let sample = Sample::new(self.name, cell, &answers, per_answer, costs);
        let expected = if cell.work.stores_sessions() { sample.accepted } else { 0 };
        ensure!(
            u64::try_from(stored).ok() == Some(expected),
            "{}: {expected} sessions were confirmed and {stored} stored, at {} connections",
            self.name,
            cell.connections
        );
        self.settle().await?;
        Ok(sample)
    }

    async fn run(&self, cell: &Cell, duration: Duration) -> Result<Answers> {
        let (source, cell) = (self.source.clone(), *cell);
        tokio::task::spawn_blocking(move || match &source {
            Source::Pgbench(pgbench) => pgbench.run(cell.connections, duration),
            Source::Http(requests) => requests.run(cell, duration),
        })
        .await
        .context("the load panicked")?
        .with_context(|| self.name)
    }

    async fn rows(&self) -> Result<i64> {
        Ok(self.sql.query_one(ROWS, &[]).await?.try_get(0)?)
    }

    fn costs(&self) -> Result<Costs> {
        let of = |root: Option<u32>| root.map(process::tree_usage).transpose();
        Ok(Costs {
            server: of(self.server)?,
            livekit: of(self.livekit)?,
            postgres: process::server_time(self.backend)?,
            generator: process::processor_time(std::process::id())?,
        })
    }

    /// Lets the next cell start with the same state: after a checkpoint, and with an idle keeper.
    async fn settle(&self) -> Result<()> {
        self.sql.batch_execute("checkpoint").await?;
        if self.name != GREENROOM {
            return Ok(());
        }
        wait_until("the keeper to check all due sessions", SETTLE_TIMEOUT, async || {
            let due: i64 = self.sql.query_one(DUE, &[]).await?.try_get(0)?;
            Ok((due == 0).then_some(()))
        })
        .await
    }
}

impl Requests {
    /// Starts a session, which the requests for one session name.
    async fn new(env: &BenchEnv, address: &str, token: &str, template: &str) -> Result<Self> {
        let body = json!({ "session_template_id": template }).to_string();
        let url = format!("http://{address}{START}");
        let request = env.client.post(url).bearer_auth(token);
        let request = request.header("Content-Type", "application/json").body(body.clone());
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let session = text(&answer, "session_id")?;
        let head = format!("Host: service\r\nAuthorization: Bearer {token}\r\n");
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\n{head}\r\n").into_bytes();
        let start = format!(
            "POST {START} HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Self {
            address: address.to_owned(),
            start: start.into_bytes(),
            get: get(&format!("/api/v1/sessions/{session}")),
            list: get("/api/v1/sessions?limit=50"),
        })
    }

    fn run(&self, cell: Cell, duration: Duration) -> Result<Answers> {
        let (request, expected) = match cell.work {
            Work::Start | Work::Room => (&self.start, 201),
            Work::Get => (&self.get, 200),
            Work::List => (&self.list, 200),
        };
        load::run(&self.address, request, expected, cell.connections, duration)
    }
}
