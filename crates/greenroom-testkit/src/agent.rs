//! Real agent workers that use livekit-agents: the demo (`python/greeter.py`) and scripted agents.

mod scripted_agent;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::livekit::Server;
use crate::process::{GuardedCommand, Process};
use crate::{paths, tools, wait_until};

pub use self::scripted_agent::{Job, ScriptedAgent};

/// Maximum time until a worker has registered. Importing livekit-agents is slow on a busy machine.
const REGISTER_TIMEOUT: Duration = Duration::from_mins(1);

/// Time between SIGTERM and SIGKILL, in which the jobs leave their rooms. A complete shutdown can
/// take ten seconds, and the tests do not wait for it.
const STOP_GRACE_PERIOD: Duration = Duration::from_secs(2);

/// The message that a worker logs after LiveKit has registered it. LiveKit drops a dispatch that
/// is created earlier.
const REGISTERED_MESSAGE: &str = "registered worker";

/// A running agent worker. Dropping it stops the worker, and its agents leave their rooms.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    directory: PathBuf,
}

impl Worker {
    /// Starts a worker with this agent name and waits until it has registered with LiveKit. Its
    /// agents send each user a greeting that contains the session id.
    ///
    /// # Errors
    /// Returns an error if Python is missing or the worker does not register within a minute.
    pub async fn start(server: &Server, agent_name: &str) -> Result<Self> {
        let environment = [("GREETER_AGENT_NAME", agent_name.into())];
        let directory = paths::create_temp_dir("agent", None)?;
        let mut worker = Self::spawn(server, "greeter.py", &environment, directory).await?;
        worker.wait_until_registered().await?;
        Ok(worker)
    }

    async fn spawn(
        server: &Server,
        script: &str,
        environment: &[(&str, OsString)],
        directory: PathBuf,
    ) -> Result<Self> {
        let python = tokio::task::spawn_blocking(|| tools::python::LIVEKIT.interpreter()).await??;
        let mut command = GuardedCommand::new("agent-worker", python, directory.join("agent.log"))
            .args([tools::python::script(script).as_os_str(), "start".as_ref()])
            .env("LIVEKIT_URL", server.url())
            .env("LIVEKIT_API_KEY", server.api_key())
            .env("LIVEKIT_API_SECRET", server.api_secret())
            .stop_signal("TERM", STOP_GRACE_PERIOD)
            .remove_on_stop(&directory);
        for (name, value) in environment {
            command = command.env(name, value);
        }
        Ok(Self { process: command.start()?, directory })
    }

    /// Waits until the worker has registered with LiveKit.
    ///
    /// # Errors
    /// Returns an error if the worker exits or does not register within a minute.
    pub async fn wait_until_registered(&mut self) -> Result<()> {
        let registered = wait_until("the agent worker to register", REGISTER_TIMEOUT, || {
            let done = self.process.has_exited() || self.registration_count() > 0;
            async move { Ok(done.then_some(())) }
        })
        .await;
        self.process.ensure_running()?;
        registered.with_context(|| self.output())
    }

    /// Returns how often the worker has registered. It registers again whenever it has lost its
    /// connection to LiveKit and reconnects.
    #[must_use]
    pub fn registration_count(&self) -> usize {
        self.output().matches(REGISTERED_MESSAGE).count()
    }

    /// Kills the worker and its jobs. They disconnect from LiveKit without a message.
    ///
    /// # Errors
    /// Returns an error if waiting for the processes fails.
    pub async fn kill(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.process.kill()).await?
    }

    /// Returns the worker's log so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }
}
