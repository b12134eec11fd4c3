//! The real components that the commands use: external servers from the environment, or local ones.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::Cluster;
use greenroom_testkit::tools::{livekit, postgres, python};
use tokio_postgres::NoTls;

use crate::env;
use crate::steps::Steps;

/// A PostgreSQL server: the external server of `DATABASE_URL`, or a local cluster, which stops when
/// this is dropped.
pub struct Postgres {
    pub url: String,
    /// `None` for an external server.
    _cluster: Option<Cluster>,
}

impl Postgres {
    /// Uses `DATABASE_URL`, or the database `greenroom` of the cluster that is kept in `directory`.
    pub async fn persistent(steps: &Steps, directory: &Path) -> Result<Self> {
        steps
            .run("PostgreSQL", Self::progress(), async {
                if let Some(url) = env::text("DATABASE_URL") {
                    return Ok((Self { url, _cluster: None }, "from DATABASE_URL".to_owned()));
                }
                let cluster = Cluster::open_or_create(directory).await?;
                let url = cluster.ensure_database("greenroom").await?;
                let summary = format!("127.0.0.1:{}", cluster.port());
                Ok((Self { url, _cluster: Some(cluster) }, summary))
            })
            .await
    }

    /// Uses the server of `DATABASE_URL`, on which each test creates its own database, or a
    /// temporary cluster.
    pub async fn for_tests(steps: &Steps) -> Result<Self> {
        steps
            .run("PostgreSQL", Self::progress(), async {
                if let Some(url) = env::text("DATABASE_URL") {
                    return Ok((Self { url, _cluster: None }, "from DATABASE_URL".to_owned()));
                }
                let cluster = Cluster::temporary().await?;
                let summary = format!("127.0.0.1:{}, temporary", cluster.port());
                Ok((Self { url: cluster.url("postgres"), _cluster: Some(cluster) }, summary))
            })
            .await
    }

    /// Uses the server of `DATABASE_URL` or a temporary cluster. Fails if commits on it are not
    /// durable.
    pub async fn durable(steps: &Steps) -> Result<Self> {
        steps
            .run("PostgreSQL", Self::progress(), async {
                let (postgres, source) = match env::text("DATABASE_URL") {
                    Some(url) => (Self { url, _cluster: None }, "from DATABASE_URL".to_owned()),
                    None => {
                        let cluster = Cluster::temporary_durable().await?;
                        let source = format!("127.0.0.1:{}, temporary", cluster.port());
                        (Self { url: cluster.url("postgres"), _cluster: Some(cluster) }, source)
                    }
                };
                postgres.ensure_durable().await?;
                Ok((postgres, format!("{source}, with fsync and synchronous_commit")))
            })
            .await
    }

    async fn ensure_durable(&self) -> Result<()> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value: String = client.query_one(&format!("show {setting}"), &[]).await?.get(0);
            ensure!(
                value != "off",
                "{setting} is off, so the figures would be too good: turn it on"
            );
        }
        Ok(())
    }

    fn progress() -> &'static str {
        if env::text("DATABASE_URL").is_some() || postgres::installed().is_some() {
            "starting"
        } else {
            "downloading, because no PostgreSQL is installed"
        }
    }
}

/// Uses the server of `LIVEKIT_URL`, or starts one that sends its webhooks to `webhook_urls`.
pub async fn livekit(steps: &Steps, webhook_urls: Vec<String>) -> Result<Server> {
    let progress = if livekit::installed().is_some() {
        "starting"
    } else {
        "building with Go, takes about 90 s"
    };
    steps
        .run("LiveKit", progress, async {
            let variables = ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"].map(env::text);
            let (server, source) = match variables {
                [Some(url), Some(key), Some(secret)] => {
                    (Server::external(url, key, secret), ", from LIVEKIT_URL")
                }
                [None, _, _] => {
                    let options = Options { webhook_urls, ..Options::default() };
                    (Server::start_with(options).await?, "")
                }
                _ => bail!(
                    "LIVEKIT_URL is set, so LIVEKIT_API_KEY and LIVEKIT_API_SECRET must be set"
                ),
            };
            // An external server may be unreachable, or refuse the keys.
            server.rooms().await?;
            let summary = format!("{}{source}", server.url());
            Ok((server, summary))
        })
        .await
}

/// Installs the Python environment of the agent workers and users.
pub async fn python(steps: &Steps) -> Result<()> {
    let summary = "livekit-agents for the agent, livekit for the user";
    install(steps, "Python", &python::LIVEKIT, summary, "about a minute").await
}

/// Installs the Python environment of the checks that compare a service with its OpenAPI document.
pub async fn contract(steps: &Steps) -> Result<()> {
    let summary = "schemathesis and openapi-spec-validator";
    install(steps, "Contract", &python::CONTRACT, summary, "a few seconds").await
}

async fn install(
    steps: &Steps,
    name: &str,
    environment: &'static python::Environment,
    summary: &str,
    duration: &str,
) -> Result<()> {
    let installing = format!("installing into target/tools, takes {duration}");
    let progress = if environment.installed() { "checking" } else { &installing };
    steps
        .run(name, progress, async {
            tokio::task::spawn_blocking(|| environment.interpreter()).await??;
            Ok(((), summary.to_owned()))
        })
        .await
}
