//! Real agent workers on livekit-agents: the demo, `python/greeter.py`, and actors.

mod actor;

pub use actor::{Actor, Job};

use std::{ffi::OsString, path::PathBuf, time::Duration};

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

/// A worker. Dropping it stops it: its agents leave their rooms.
#[derive(Debug)]
pub struct Worker {
    process: Process,
    home: PathBuf,
}

impl Worker {
    /// Starts a worker of this name, which sends every user of its rooms a greeting that names the
    /// session, and waits until LiveKit knows it.
    ///
    /// # Errors
    /// When Python is missing, or the worker does not register.
    pub async fn start(server: &Server, agent_name: &str) -> Result<Self> {
        let name = [("GREETER_AGENT_NAME", agent_name.into())];
        let home = place::temporary("agent", None)?;
        let mut worker = Self::launch(server, "greeter.py", &name, home).await?;
        worker.registered().await?;
        Ok(worker)
    }

    async fn launch(
        server: &Server,
        script: &str,
        environment: &[(&str, OsString)],
        home: PathBuf,
    ) -> Result<Self> {
        let python = tokio::task::spawn_blocking(|| tools::python::LIVEKIT.interpreter()).await??;
        let mut worker = Guarded::new("agent-worker", python, home.join("agent.log"))
            .args([tools::python::script(script).as_os_str(), "start".as_ref()])
            .env("LIVEKIT_URL", server.url())
            .env("LIVEKIT_API_KEY", server.api_key())
            .env("LIVEKIT_API_SECRET", server.api_secret())
            .stopped_by("TERM", TO_LEAVE)
            .removing(&home);
        for (name, value) in environment {
            worker = worker.env(name, value);
        }
        Ok(Self { process: worker.start()?, home })
    }

    /// Waits until LiveKit knows it.
    ///
    /// # Errors
    /// When it does not register in time.
    pub async fn registered(&mut self) -> Result<()> {
        let registered = wait_until("the agent worker to register", PATIENCE, || {
            let done = self.process.has_ended() || self.registrations() > 0;
            async move { Ok(done.then_some(())) }
        })
        .await;
        self.process.check()?;
        registered.with_context(|| self.output())
    }

    /// How often it has registered: again whenever its LiveKit was gone and came back.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.output().matches(REGISTERED).count()
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
