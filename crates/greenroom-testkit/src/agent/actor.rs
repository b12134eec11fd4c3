//! An agent that behaves as a test tells it to: `python/actor.py` on livekit-agents.

use std::{ffi::OsString, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Worker;
use crate::{lines, livekit::Server, place};

/// What a worker to be started is to do. It greets nobody; a data packet of the topic `hangup`
/// makes its agents leave their rooms.
#[derive(Debug, Clone)]
pub struct Actor {
    name: String,
    environment: Vec<(&'static str, OsString)>,
    load: f32,
}

/// A job that a worker's agent began.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Job {
    /// LiveKit's id of it: the agent's identity in the room is `agent-` and this.
    pub id: String,
    /// The dispatch it came from.
    pub dispatch_id: String,
    /// The room's name.
    pub room: String,
    /// The metadata of the dispatch.
    pub metadata: String,
}

impl Actor {
    /// An agent of this name that joins its rooms at once and stays there.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), environment: Vec::new(), load: 0.0 }
    }

    /// Its jobs wait this long before they join their rooms.
    #[must_use]
    pub fn booting(self, time: Duration) -> Self {
        self.with("ACTOR_BOOT", time.as_secs_f32().to_string())
    }

    /// Its jobs begin and never join their rooms.
    #[must_use]
    pub fn never_joining(self) -> Self {
        self.with("ACTOR_BOOT", "never")
    }

    /// It takes so many jobs at the same time and refuses the others: LiveKit then asks its other
    /// workers, and gives up when there is none.
    #[must_use]
    pub fn at_most(self, jobs: usize) -> Self {
        self.with("ACTOR_MAX_JOBS", jobs.to_string())
    }

    /// Its agents leave of their own accord this long after they saw a user.
    #[must_use]
    pub fn staying(self, time: Duration) -> Self {
        self.with("ACTOR_STAYS", time.as_secs_f32().to_string())
    }

    /// Its agents leave of their own accord as soon as they have joined.
    #[must_use]
    pub fn leaving_at_once(self) -> Self {
        self.with("ACTOR_STAYS", "none")
    }

    /// It keeps so many processes ready, which saves a job about a second.
    #[must_use]
    pub fn idle_processes(self, processes: usize) -> Self {
        self.with("ACTOR_IDLE", processes.to_string())
    }

    /// It reports this load until [`Worker::set_load`]; else none.
    #[must_use]
    pub fn loaded(mut self, load: f32) -> Self {
        self.load = load;
        self
    }

    /// Starts a worker and waits until LiveKit knows it.
    ///
    /// # Errors
    /// When Python is missing, or the worker does not register.
    pub async fn start(&self, server: &Server) -> Result<Worker> {
        let mut worker = self.launch(server).await?;
        worker.registered().await?;
        Ok(worker)
    }

    /// Starts a worker, which LiveKit does not know before [`Worker::registered`] says so.
    ///
    /// # Errors
    /// When Python is missing.
    pub async fn launch(&self, server: &Server) -> Result<Worker> {
        let stage = place::temporary("actor", None)?;
        write_load(&stage, self.load)?;
        let mut environment = self.environment.clone();
        environment.push(("ACTOR_AGENT_NAME", self.name.clone().into()));
        environment.push(("ACTOR_STAGE", stage.clone().into()));
        Worker::launch(server, "actor.py", &environment, stage).await
    }

    fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }
}

/// What only an [`Actor`] does.
impl Worker {
    /// The jobs its agents began, ever.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        lines::read(&self.home.join("jobs"))
    }

    /// Makes it report this load. LiveKit hears of it within three seconds.
    ///
    /// # Errors
    /// When it cannot be told to.
    pub fn set_load(&self, load: f32) -> Result<()> {
        write_load(&self.home, load)
    }
}

fn write_load(stage: &Path, load: f32) -> Result<()> {
    // Put in place whole: the worker reads it at any moment.
    let new = stage.join("load.new");
    std::fs::write(&new, load.to_string())?;
    std::fs::rename(new, stage.join("load")).context("cannot tell the worker its load")
}
