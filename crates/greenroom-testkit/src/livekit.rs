//! A real LiveKit server.

mod cluster;
mod redis;
mod rooms;
mod webhook;

pub use cluster::Cluster;
pub use livekit_protocol::AgentDispatch;
pub use rooms::View;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{
    env, place,
    process::{Guarded, Process},
    tools, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// LiveKit's own [`Options::target_load`].
pub const USUAL_TARGET_LOAD: f32 = 0.7;

/// The server of this process, when nobody gave us one. Its guard stops it when the process ends.
static SHARED: OnceCell<Server> = OnceCell::const_new();

/// How a server of a test's own differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where it sends its webhooks.
    pub webhook_urls: Vec<String>,
    /// The load of a worker from which it gets no more jobs. None means never: a busy machine would
    /// lose dispatches at random. LiveKit's own is [`USUAL_TARGET_LOAD`].
    pub target_load: Option<f32>,
    /// The `host:port` of the Redis it shares with other nodes: None makes it one of its own.
    pub redis: Option<String>,
}

/// A running LiveKit server, ours or somebody's. Dropping ours stops it at once.
#[derive(Debug)]
pub struct Server {
    url: String,
    api_key: String,
    api_secret: String,
    ours: Option<Ours>,
}

#[derive(Debug)]
struct Ours {
    program: std::path::PathBuf,
    ports: Ports,
    options: Options,
    process: Option<Process>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    tcp: u16,
    udp: u16,
}

impl Server {
    /// A new server for one test.
    ///
    /// # Errors
    /// When LiveKit is missing or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// A new server that differs from the usual one.
    ///
    /// # Errors
    /// When LiveKit is missing or does not start.
    pub async fn start_with(options: Options) -> Result<Self> {
        let secret = format!("{}{}", place::random_hex()?, place::random_hex()?);
        Self::start_with_secret(&secret, options).await
    }

    async fn start_with_secret(secret: &str, options: Options) -> Result<Self> {
        let program = tokio::task::spawn_blocking(tools::livekit::server).await??;
        for _ in 0..2 {
            // Another process may take a port between our finding it free and the server's binding
            // it.
            if let Ok(server) = Self::start_once(program.clone(), secret, options.clone()).await {
                return Ok(server);
            }
        }
        Self::start_once(program, secret, options).await
    }

    /// A server that runs already.
    #[must_use]
    pub fn at(url: String, api_key: String, api_secret: String) -> Self {
        Self { url, api_key, api_secret, ours: None }
    }

    /// The server of `GREENROOM_TEST_LIVEKIT_URL`, `…_API_KEY` and `…_API_SECRET`, or else one per
    /// test process.
    ///
    /// # Errors
    /// When LiveKit is missing or does not start.
    pub async fn shared() -> Result<&'static Self> {
        let given = |name: &str| env::text(&format!("GREENROOM_TEST_LIVEKIT_{name}"));
        SHARED
            .get_or_try_init(|| async {
                match (given("URL"), given("API_KEY"), given("API_SECRET")) {
                    (Some(url), Some(key), Some(secret)) => Ok(Self::at(url, key, secret)),
                    _ => Self::start().await,
                }
            })
            .await
    }

    async fn start_once(
        program: std::path::PathBuf,
        secret: &str,
        options: Options,
    ) -> Result<Self> {
        let ports = Ports {
            http: place::free_tcp_port()?,
            tcp: place::free_tcp_port()?,
            udp: place::free_udp_port()?,
        };
        let mut server = Self {
            url: format!("ws://127.0.0.1:{}", ports.http),
            api_key: "devkey".to_owned(),
            api_secret: secret.to_owned(),
            ours: Some(Ours { program, ports, options, process: None }),
        };
        server.restart().await?;
        Ok(server)
    }

    /// The address for clients, `ws://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address for calls, `http://…`.
    #[must_use]
    pub fn api_url(&self) -> String {
        self.url.replacen("ws", "http", 1)
    }

    /// The API key.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The API secret, at least 32 characters long.
    #[must_use]
    pub fn api_secret(&self) -> &str {
        &self.api_secret
    }

    /// Kills the server (on SIGTERM it would wait for its rooms to empty) and waits until it is
    /// gone.
    ///
    /// # Errors
    /// When it is not ours, or not running.
    pub async fn stop(&mut self) -> Result<()> {
        let ours = self.ours.as_mut().context("this server is not ours to stop")?;
        let process = ours.process.take().context("the server is stopped")?;
        tokio::task::spawn_blocking(move || process.kill()).await?
    }

    /// Starts it again after [`Self::stop`], on the same ports, with the same keys and no rooms.
    ///
    /// # Errors
    /// When it is not ours, or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        let keys = (self.api_key.clone(), self.api_secret.clone());
        let ours = self.ours.as_mut().context("this server is not ours to start")?;
        let mut process = ours.launch(&keys)?;
        let rooms = self.room_client();
        let up = wait_until("LiveKit to answer", PATIENCE, || {
            let dead = process.has_ended();
            let rooms = &rooms;
            async move {
                if dead {
                    Ok(Some(()))
                } else {
                    rooms.list_rooms(Vec::new()).await.map(|_| Some(())).map_err(Into::into)
                }
            }
        })
        .await;
        process.check()?;
        up?;
        self.ours.as_mut().context("it was ours above")?.process = Some(process);
        Ok(())
    }

    /// Makes it hang (it accepts connections and answers nothing) until [`Self::resume`].
    ///
    /// # Errors
    /// When it is not ours, or not running.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets a hanging server go on.
    ///
    /// # Errors
    /// When it is not ours, or not running.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// What it has logged since it was started last.
    ///
    /// # Errors
    /// When it is not ours, or not running.
    pub fn output(&self) -> Result<String> {
        self.process().map(Process::output)
    }

    /// What it is called in its cluster since it was started last. It says so only in its log.
    fn node_id(&self) -> Result<String> {
        let output = self.output()?;
        let started = output.lines().find(|line| line.contains("starting LiveKit server"));
        let id = started
            .and_then(|line| line.split_once(r#""nodeID": ""#)?.1.split_once('"'))
            .map(|(id, _)| id.to_owned());
        id.context("the server has not said what it is called")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        self.process()?.signal(signal)
    }

    fn process(&self) -> Result<&Process> {
        let process = self.ours.as_ref().and_then(|ours| ours.process.as_ref());
        process.context("no server of ours is running")
    }
}

impl Ours {
    fn launch(&self, (api_key, api_secret): &(String, String)) -> Result<Process> {
        let home = place::temporary("livekit", None)?;
        // JSON is YAML. By the environment, because arguments can be read by everybody on the
        // machine.
        let mut configuration = json!({
            "port": self.ports.http,
            "bind_addresses": ["127.0.0.1"],
            "rtc": { "tcp_port": self.ports.tcp, "udp_port": self.ports.udp, "use_external_ip": false },
            "keys": { api_key: api_secret },
            "agents": { "target_load": self.options.target_load.unwrap_or(100.0) },
            "webhook": { "api_key": api_key, "urls": self.options.webhook_urls },
            "logging": { "level": "info" },
        });
        if let Some(redis) = &self.options.redis {
            configuration["redis"] = json!({ "address": redis });
        }
        Guarded::new("livekit-server", &self.program, home.join("livekit.log"))
            .args(["--node-ip", "127.0.0.1"])
            .env("LIVEKIT_CONFIG", configuration.to_string())
            .stopped_by("KILL", Duration::ZERO)
            .removing(home)
            .start()
    }
}
