//! The services that Greenroom is compared with: their programs, databases and processes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::process::{GuardedCommand, Process};
use greenroom_testkit::tools::find_on_path;
use greenroom_testkit::tools::python::Environment;
use greenroom_testkit::{caller, paths, ports, random_hex, wait_until};
use tokio_postgres::Client;

use super::JOIN_WINDOW_SECONDS;
use crate::api::ORGANIZATION;
use crate::bench::deployment::{self, BenchEnv};
use crate::steps::Steps;

const SCHEMA: &str = include_str!("../../../../bench/peers/schema.sql");

static PYTHON: Environment = Environment::new(
    "python-peers",
    include_str!("../../../../bench/peers/fastapi/requirements.txt"),
);

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of database connections of a service. Of 8, 16, 32 and 64, the Go service is fastest with
/// 16 at 64 client connections.
const POOL_SIZE: &str = "16";

const MISSING_GO: &str = "Go is missing: install Go 1.26 or later";

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Go,
    FastApi,
}

/// A running service. The fields are dropped in this order.
pub struct Peer {
    pub address: String,
    /// A token of a backend of the default organization.
    pub token: String,
    process: Process,
    database: Database,
}

impl Peer {
    /// Builds and starts the service with an empty database.
    pub async fn start(env: &BenchEnv, kind: Kind, livekit: &Server) -> Result<Self> {
        Self::start_on(env, kind, livekit, ports::free_tcp_port()?).await
    }

    /// Does the same as [`Self::start`] on this port, to which LiveKit sends its webhooks.
    pub async fn start_on(env: &BenchEnv, kind: Kind, livekit: &Server, port: u16) -> Result<Self> {
        let command = command(&env.steps, kind, env.home.join(format!("{kind:?}.log"))).await?;
        let database = create_database(env).await?;
        let secret = format!("{}{}", random_hex()?, random_hex()?);
        let address = format!("127.0.0.1:{port}");
        let mut process = command
            .env("LISTEN", &address)
            .env("DATABASE_URL", database.url())
            .env("POOL_SIZE", POOL_SIZE)
            .env("LIVEKIT_URL", livekit.url())
            .env("LIVEKIT_API_KEY", livekit.api_key())
            .env("LIVEKIT_API_SECRET", livekit.api_secret())
            .env("AUTH_JWT_SECRET", &secret)
            .start()?;
        wait_until_ready(env, &mut process, &address).await?;
        let token = caller::backend_token(&secret, ORGANIZATION);
        Ok(Self { address, token, process, database })
    }

    /// Creates a template and returns its id.
    pub async fn create_template(
        &self,
        room_creation: &str,
        agent: Option<&str>,
    ) -> Result<String> {
        insert_template(&self.connect().await?, room_creation, agent).await
    }

    /// Opens a connection to the service's database.
    pub async fn connect(&self) -> Result<Client> {
        deployment::connect(self.database.url()).await
    }

    /// Returns the id of the parent of the service's processes.
    pub fn guard_id(&self) -> u32 {
        self.process.guard_id()
    }
}

/// Creates a database with the tables of both services.
pub async fn create_database(env: &BenchEnv) -> Result<Database> {
    let database = Database::empty_on(env.database_url.clone()).await?;
    deployment::connect(database.url()).await?.batch_execute(SCHEMA).await?;
    Ok(database)
}

pub async fn insert_template(
    sql: &Client,
    room_creation: &str,
    agent: Option<&str>,
) -> Result<String> {
    const INSERT: &str = "
        insert into templates (id, organization_id, name, agent_name, room_creation, join_window_seconds, token_ttl_seconds)
        values (gen_random_uuid(), $1::text::uuid, 'Peer', $2, $3, $4, 3600) returning id::text";
    let row = sql
        .query_one(
            INSERT,
            &[&ORGANIZATION.to_string(), &agent, &room_creation, &JOIN_WINDOW_SECONDS],
        )
        .await?;
    Ok(row.try_get(0)?)
}

async fn command(steps: &Steps, kind: Kind, log: PathBuf) -> Result<GuardedCommand> {
    std::fs::remove_file(&log).ok();
    let directory = paths::workspace_root().join("bench/peers");
    tokio::task::spawn_blocking(move || {
        Ok(match kind {
            Kind::Go => GuardedCommand::new("go-service", build_go()?, log),
            Kind::FastApi => GuardedCommand::new("fastapi", PYTHON.interpreter()?, log)
                .args(["service.py"])
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .current_dir(directory.join("fastapi")),
        })
    })
    .await
    .context("the build panicked")?
    .inspect_err(|error: &anyhow::Error| steps.line(&format!("      {kind:?}: {error:#}")))
}

/// Builds the Go service, which takes a minute and a half the first time. Blocks.
fn build_go() -> Result<PathBuf> {
    let go = find_on_path("go").context(MISSING_GO)?;
    let directory = paths::target_dir().join("bench-peers");
    let program = directory.join("go-service");
    GuardedCommand::new("go-build", go, directory.join("go-build.log"))
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .args([program.as_os_str(), ".".as_ref()])
        .current_dir(paths::workspace_root().join("bench/peers/go"))
        .run()?;
    Ok(program)
}

async fn wait_until_ready(env: &BenchEnv, process: &mut Process, address: &str) -> Result<()> {
    let url = format!("http://{address}/readyz");
    let ready = wait_until("/readyz to return 200", READY_TIMEOUT, || {
        let has_exited = process.has_exited();
        let request = env.client.get(&url);
        async move {
            if has_exited {
                return Ok(Some(()));
            }
            request.send().await?.error_for_status()?;
            Ok(Some(()))
        }
    })
    .await;
    process.ensure_running()?;
    ready
}
