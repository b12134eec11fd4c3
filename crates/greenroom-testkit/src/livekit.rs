//! Real LiveKit servers, alone or as a cluster of two nodes.

mod cluster;
mod redis;
mod rooms;
mod scripted;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::process::{GuardedCommand, Process};
use crate::{env, paths, ports, random_hex, tools, wait_until};

pub use livekit_protocol::AgentDispatch;

pub use self::cluster::Cluster;
pub use self::rooms::RoomInspector;
pub use self::scripted::{ScriptedApi, Trouble};

/// Maximum time until a server responds after its start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The value that LiveKit itself uses for [`Options::target_load`] by default.
pub const LIVEKIT_DEFAULT_TARGET_LOAD: f32 = 0.7;

/// The server that all tests of this process share. Its guard stops it when the process ends.
static SHARED: OnceCell<Server> = OnceCell::const_new();

/// Settings of a server for one test.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The URLs to which the server sends its webhooks.
    pub webhook_urls: Vec<String>,
    /// The load of a worker at which LiveKit stops assigning jobs to it. `None` means 100, which no
    /// worker reaches, because a busy machine would otherwise lose dispatches at random. LiveKit's
    /// own default is [`LIVEKIT_DEFAULT_TARGET_LOAD`].
    pub target_load: Option<f32>,
    /// The `host:port` of a Redis that the server shares with the other nodes of its cluster.
    /// `None` starts a server without a cluster.
    pub redis: Option<String>,
}

/// A running LiveKit server: a local server that this process has started, or an external server.
/// Dropping a local server stops it at once.
#[derive(Debug)]
pub struct Server {
    url: String,
    api_key: String,
    api_secret: String,
    /// `None` for an external server.
    local: Option<LocalServer>,
}

#[derive(Debug)]
struct LocalServer {
    program: PathBuf,
    ports: Ports,
    options: Options,
    /// `None` while the server is stopped.
    process: Option<Process>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    tcp: u16,
    udp: u16,
}

impl Server {
    /// Starts a server for one test.
    ///
    /// # Errors
    /// Returns an error if LiveKit is missing or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts a server with these options.
    ///
    /// # Errors
    /// Returns an error if LiveKit is missing or does not start.
    pub async fn start_with(options: Options) -> Result<Self> {
        let secret = format!("{}{}", random_hex()?, random_hex()?);
        Self::start_with_secret(&secret, options).await
    }

    async fn start_with_secret(secret: &str, options: Options) -> Result<Self> {
        let program = tokio::task::spawn_blocking(tools::livekit::server).await??;
        for _ in 0..2 {
            // Retry, because another process may take a free port before the server binds it.
            if let Ok(server) = Self::start_once(program.clone(), secret, options.clone()).await {
                return Ok(server);
            }
        }
        Self::start_once(program, secret, options).await
    }

    /// Connects to an external server, which this process cannot stop or pause.
    #[must_use]
    pub fn external(url: String, api_key: String, api_secret: String) -> Self {
        Self { url, api_key, api_secret, local: None }
    }

    /// Returns the server of `GREENROOM_TEST_LIVEKIT_URL`, `…_API_KEY` and `…_API_SECRET`. If one
    /// of them is not set, returns a server that is started once per test process.
    ///
    /// # Errors
    /// Returns an error if LiveKit is missing or does not start.
    pub async fn shared() -> Result<&'static Self> {
        let variable = |name: &str| env::text(&format!("GREENROOM_TEST_LIVEKIT_{name}"));
        SHARED
            .get_or_try_init(|| async {
                match (variable("URL"), variable("API_KEY"), variable("API_SECRET")) {
                    (Some(url), Some(key), Some(secret)) => Ok(Self::external(url, key, secret)),
                    _ => Self::start().await,
                }
            })
            .await
    }

    async fn start_once(program: PathBuf, secret: &str, options: Options) -> Result<Self> {
        let ports = Ports {
            http: ports::free_tcp_port()?,
            tcp: ports::free_tcp_port()?,
            udp: ports::free_udp_port()?,
        };
        let mut server = Self {
            url: format!("ws://127.0.0.1:{}", ports.http),
            api_key: "devkey".to_owned(),
            api_secret: secret.to_owned(),
            local: Some(LocalServer { program, ports, options, process: None }),
        };
        server.restart().await?;
        Ok(server)
    }

    /// Returns the URL for clients, `ws://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL of the server API, `http://…`.
    #[must_use]
    pub fn api_url(&self) -> String {
        self.url.replacen("ws", "http", 1)
    }

    /// Returns the API key.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Returns the API secret, which has at least 32 characters.
    #[must_use]
    pub fn api_secret(&self) -> &str {
        &self.api_secret
    }

    /// Kills the server and waits until it has exited. After SIGTERM, LiveKit would wait until its
    /// rooms are empty.
    ///
    /// # Errors
    /// Returns an error if the server is external or not running.
    pub async fn stop(&mut self) -> Result<()> {
        let local = self.local.as_mut().context("an external LiveKit server cannot be stopped")?;
        let process = local.process.take().context("the LiveKit server is not running")?;
        tokio::task::spawn_blocking(move || process.kill()).await?
    }

    /// Starts the server again after [`Self::stop`], with the same ports and keys and without
    /// rooms.
    ///
    /// # Errors
    /// Returns an error if the server is external or does not start.
    pub async fn restart(&mut self) -> Result<()> {
        let keys = (self.api_key.clone(), self.api_secret.clone());
        let local = self.local.as_mut().context("an external LiveKit server cannot be started")?;
        let mut process = local.launch(&keys)?;
        let rooms = self.room_client();
        let ready = wait_until("LiveKit to respond", START_TIMEOUT, || {
            let has_exited = process.has_exited();
            let rooms = &rooms;
            async move {
                if has_exited {
                    Ok(Some(()))
                } else {
                    rooms.list_rooms(Vec::new()).await.map(|_| Some(())).map_err(Into::into)
                }
            }
        })
        .await;
        process.ensure_running()?;
        ready?;
        self.local.as_mut().context("the server was local above")?.process = Some(process);
        Ok(())
    }

    /// Makes the server hang until [`Self::resume`]: it accepts connections but does not respond.
    ///
    /// # Errors
    /// Returns an error if the server is external or not running.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Makes the server continue after [`Self::pause`].
    ///
    /// # Errors
    /// Returns an error if the server is external or not running.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Returns the server's log since its last start.
    ///
    /// # Errors
    /// Returns an error if the server is external or not running.
    pub fn output(&self) -> Result<String> {
        self.process().map(Process::output)
    }

    /// Returns the id of the server's parent process.
    ///
    /// # Errors
    /// Returns an error if the server is external or not running.
    pub fn guard_id(&self) -> Result<u32> {
        self.process().map(Process::guard_id)
    }

    /// Returns the server's node id since its last start. LiveKit reports the id only in its log.
    fn node_id(&self) -> Result<String> {
        let output = self.output()?;
        let start_line = output.lines().find(|line| line.contains("starting LiveKit server"));
        let id = start_line
            .and_then(|line| line.split_once(r#""nodeID": ""#)?.1.split_once('"'))
            .map(|(id, _)| id.to_owned());
        id.context("LiveKit's log contains no node id")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        self.process()?.signal(signal)
    }

    fn process(&self) -> Result<&Process> {
        let process = self.local.as_ref().and_then(|local| local.process.as_ref());
        process.context("the LiveKit server is external or not running")
    }
}

impl LocalServer {
    fn launch(&self, (api_key, api_secret): &(String, String)) -> Result<Process> {
        let directory = paths::create_temp_dir("livekit", None)?;
        // LiveKit parses YAML, and JSON is YAML. Pass it in an environment variable, because all
        // users of the machine can read the arguments.
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
        GuardedCommand::new("livekit-server", &self.program, directory.join("livekit.log"))
            .args(["--node-ip", "127.0.0.1"])
            .env("LIVEKIT_CONFIG", configuration.to_string())
            .stop_signal("KILL", Duration::ZERO)
            .remove_on_stop(directory)
            .start()
    }
}
