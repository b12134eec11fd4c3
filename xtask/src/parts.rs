//! The real parts all chores run against: those the environment names, or our own.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::Cluster;
use greenroom_testkit::tools::{livekit, postgres, python};
use tokio_postgres::NoTls;

use crate::env;
use crate::steps::Steps;

/// A PostgreSQL server: somebody's, or ours while this lives.
pub struct Postgres {
    pub url: String,
    /// Held, not used: it stops when this is dropped.
    _cluster: Option<Cluster>,
}

impl Postgres {
    /// The server of `DATABASE_URL`, or the cluster kept in `directory`, with the database
    /// `greenroom`.
    pub async fn kept_in(steps: &Steps, directory: &Path) -> Result<Self> {
        steps
            .run("PostgreSQL", Self::busy(), async {
                if let Some(url) = env::text("DATABASE_URL") {
                    return Ok((Self { url, _cluster: None }, "that of DATABASE_URL".to_owned()));
                }
                let cluster = Cluster::kept_in(directory).await?;
                let url = cluster.database("greenroom").await?;
                let said = format!("127.0.0.1:{}", cluster.port());
                Ok((Self { url, _cluster: Some(cluster) }, said))
            })
            .await
    }

    /// The server of `DATABASE_URL`, on which tests make databases of their own, or a cluster for
    /// this run.
    pub async fn for_tests(steps: &Steps) -> Result<Self> {
        steps
            .run("PostgreSQL", Self::busy(), async {
                if let Some(url) = env::text("DATABASE_URL") {
                    return Ok((Self { url, _cluster: None }, "that of DATABASE_URL".to_owned()));
                }
                let cluster = Cluster::private().await?;
                let said = format!("127.0.0.1:{}, for this run", cluster.port());
                Ok((Self { url: cluster.url("postgres"), _cluster: Some(cluster) }, said))
            })
            .await
    }

    /// The server of `DATABASE_URL`, or a cluster for this run, that has what it commits on its disk.
    pub async fn durable(steps: &Steps) -> Result<Self> {
        steps
            .run("PostgreSQL", Self::busy(), async {
                let (postgres, whose) = match env::text("DATABASE_URL") {
                    Some(url) => (Self { url, _cluster: None }, "that of DATABASE_URL".to_owned()),
                    None => {
                        let cluster = Cluster::durable().await?;
                        let said = format!("127.0.0.1:{}, for this run", cluster.port());
                        (Self { url: cluster.url("postgres"), _cluster: Some(cluster) }, said)
                    }
                };
                postgres.keeps_what_it_commits().await?;
                Ok((postgres, format!("{whose}, with fsync and synchronous_commit")))
            })
            .await
    }

    async fn keeps_what_it_commits(&self) -> Result<()> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value: String = client.query_one(&format!("show {setting}"), &[]).await?.get(0);
            ensure!(value != "off", "{setting} is off: figures would flatter, set it to on");
        }
        Ok(())
    }

    fn busy() -> &'static str {
        if env::text("DATABASE_URL").is_some() || postgres::installed().is_some() {
            "starting"
        } else {
            "fetching it: there is none on this machine"
        }
    }
}

/// The server of `LIVEKIT_URL`, or one of ours while it lives, which tells `webhook_urls` what
/// happens in its rooms.
pub async fn livekit(steps: &Steps, webhook_urls: Vec<String>) -> Result<Server> {
    let busy = if livekit::installed().is_some() {
        "starting"
    } else {
        "building it with Go, about a minute and a half"
    };
    steps
        .run("LiveKit", busy, async {
            let named = ["LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"].map(env::text);
            let (server, whose) = match named {
                [Some(url), Some(key), Some(secret)] => {
                    (Server::at(url, key, secret), ", that of LIVEKIT_URL")
                }
                [None, _, _] => {
                    let options = Options { webhook_urls, ..Options::default() };
                    (Server::start_with(options).await?, "")
                }
                _ => bail!("LIVEKIT_URL is set: set LIVEKIT_API_KEY and LIVEKIT_API_SECRET, too"),
            };
            server.rooms().await?;
            let said = format!("{}{whose}", server.url());
            Ok((server, said))
        })
        .await
}

/// The Python environment of the agent and the user.
pub async fn python(steps: &Steps) -> Result<()> {
    let said = "livekit-agents for the agent, livekit for the user";
    install(steps, "Python", &python::LIVEKIT, said, "about a minute").await
}

/// The Python environment of what holds a service against its document.
pub async fn contract(steps: &Steps) -> Result<()> {
    let said = "schemathesis and openapi-spec-validator";
    install(steps, "Contract", &python::CONTRACT, said, "some seconds").await
}

async fn install(
    steps: &Steps,
    name: &str,
    environment: &'static python::Environment,
    said: &str,
    takes: &str,
) -> Result<()> {
    let installing = format!("installing it into target/tools, {takes}");
    let busy = if environment.installed() { "looking" } else { &installing };
    steps
        .run(name, busy, async {
            tokio::task::spawn_blocking(|| environment.interpreter()).await??;
            Ok(((), said.to_owned()))
        })
        .await
}
