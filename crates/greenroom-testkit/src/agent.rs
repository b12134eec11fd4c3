//! A real agent worker: `python/greeter.py` on livekit-agents.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{
    livekit::Server,
    place,
    process::{Guarded, Process},
    tools, wait_until,
};

/// Importing livekit-agents takes a busy machine a while.
const PATIENCE: Duration = Duration::from_mins(1);

/// What its jobs get to say goodbye to LiveKit in; closing them all can take it ten seconds.
const TO_LEAVE: Duration = Duration::from_secs(2);

/// What the worker says once LiveKit knows it. A dispatch before that is lost.
const REGISTERED: &str = "registered worker";

/// A registered worker, which sends every user of its rooms a greeting that names the session.
/// Dropping it stops it.
#[derive(Debug)]
pub struct Worker {
    process: Process,
}

impl Worker {
    /// Starts a worker of this name and waits until LiveKit knows it.
    ///
    /// # Errors
    /// When Python is missing, or the worker does not register.
    pub async fn start(server: &Server, agent_name: &str) -> Result<Self> {
        let python = tokio::task::spawn_blocking(|| tools::python::LIVEKIT.interpreter()).await??;
        let home = place::temporary("agent", None)?;
        let mut process = Guarded::new("agent-worker", python, home.join("agent.log"))
            .args([tools::python::script("greeter.py").as_os_str(), "start".as_ref()])
            .env("GREETER_AGENT_NAME", agent_name)
            .env("LIVEKIT_URL", server.url())
            .env("LIVEKIT_API_KEY", server.api_key())
            .env("LIVEKIT_API_SECRET", server.api_secret())
            .stopped_by("TERM", TO_LEAVE)
            .removing(home)
            .start()?;
        let registered = wait_until("the agent worker to register", PATIENCE, || {
            let done = process.has_ended() || process.output().contains(REGISTERED);
            async move { Ok(done.then_some(())) }
        })
        .await;
        process.check()?;
        registered.with_context(|| process.output())?;
        Ok(Self { process })
    }

    /// Kills the worker and its jobs at once, without any farewell to LiveKit.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(self) -> Result<()> {
        tokio::task::spawn_blocking(move || self.process.kill()).await?
    }

    /// What it has logged so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }
}
