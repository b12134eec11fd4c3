//! Agents with configurable behaviour: `python/scripted_agent.py`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Worker;
use crate::livekit::Server;
use crate::wait::wait_until;
use crate::{json_lines, paths};

/// Maximum time until a registered worker has reported its load twice, at 2.5 s intervals.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);

/// Configuration of a worker and its agents. By default, the agents join their rooms at once, stay
/// there, and send no greeting. A data packet with the topic `hangup` makes them leave.
#[derive(Debug, Clone)]
pub struct ScriptedAgent {
    name: String,
    environment: Vec<(&'static str, OsString)>,
    load: f32,
}

/// A job that a worker has started.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Job {
    /// LiveKit's id of the job. The agent's identity in the room is `agent-` followed by this id.
    pub id: String,
    /// The id of the dispatch for which LiveKit created the job.
    pub dispatch_id: String,
    /// The room's name.
    pub room: String,
    /// The metadata of the dispatch.
    pub metadata: String,
    /// When the job started: milliseconds since the Unix epoch.
    pub started_ms: u64,
}

impl ScriptedAgent {
    /// Describes an agent with this name and the default behaviour.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), environment: Vec::new(), load: 0.0 }
    }

    /// Makes each agent wait for `delay` before it joins its room.
    #[must_use]
    pub fn join_delay(self, delay: Duration) -> Self {
        self.with_env("SCRIPTED_AGENT_JOIN_DELAY", delay.as_secs_f32().to_string())
    }

    /// Starts jobs whose agents never join their rooms.
    #[must_use]
    pub fn never_joining(self) -> Self {
        self.with_env("SCRIPTED_AGENT_JOIN_DELAY", "never")
    }

    /// Limits the number of concurrent jobs. The worker rejects further jobs; LiveKit then asks
    /// its other workers, and drops the dispatch if no worker is left.
    #[must_use]
    pub fn max_jobs(self, jobs: usize) -> Self {
        self.with_env("SCRIPTED_AGENT_MAX_JOBS", jobs.to_string())
    }

    /// Makes each agent leave its room `delay` after a user has joined.
    #[must_use]
    pub fn leaving_after(self, delay: Duration) -> Self {
        self.with_env("SCRIPTED_AGENT_LEAVE_AFTER", delay.as_secs_f32().to_string())
    }

    /// Makes each agent leave its room as soon as it has joined.
    #[must_use]
    pub fn leaving_at_once(self) -> Self {
        self.with_env("SCRIPTED_AGENT_LEAVE_AFTER", "join")
    }

    /// Sets the number of processes that the worker keeps ready for jobs; the default is 0. A ready
    /// process starts a job about one second sooner.
    #[must_use]
    pub fn idle_processes(self, processes: usize) -> Self {
        self.with_env("SCRIPTED_AGENT_IDLE_PROCESSES", processes.to_string())
    }

    /// Sets the load that the worker reports until [`Worker::set_load`] changes it; the default is
    /// 0.
    #[must_use]
    pub fn initial_load(mut self, load: f32) -> Self {
        self.load = load;
        self
    }

    /// Starts a worker and waits until it has registered with LiveKit. If its initial load is not
    /// 0, also waits until it has reported that load.
    ///
    /// # Errors
    /// Returns an error if Python is missing, the worker's directory cannot be created, the worker
    /// does not register within a minute, or it does not report its load within 15 s of that.
    pub async fn start(&self, server: &Server) -> Result<Worker> {
        let mut worker = self.spawn(server).await?;
        worker.wait_until_registered().await?;
        if self.load > 0.0 {
            worker.wait_until_reported(self.load).await?;
        }
        Ok(worker)
    }

    /// Starts a worker without waiting until it has registered with LiveKit. Call
    /// [`Worker::wait_until_registered`] before its first dispatch.
    ///
    /// # Errors
    /// Returns an error if Python is missing or the worker's directory cannot be created.
    pub async fn spawn(&self, server: &Server) -> Result<Worker> {
        let directory = paths::create_temp_dir("scripted-agent", None)?;
        write_load(&directory, self.load)?;
        let mut environment = self.environment.clone();
        environment.push(("SCRIPTED_AGENT_NAME", self.name.clone().into()));
        environment.push(("SCRIPTED_AGENT_DIRECTORY", directory.clone().into()));
        Worker::spawn(server, "scripted_agent.py", &environment, directory).await
    }

    fn with_env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }
}

/// Methods for workers of a [`ScriptedAgent`] only.
impl Worker {
    /// Returns all jobs that the worker has started so far, including finished ones.
    ///
    /// # Errors
    /// Returns an error if the worker's list of jobs cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        json_lines::read(&self.directory.join("jobs"))
    }

    /// Sets the load that the worker reports. LiveKit receives it within three seconds.
    ///
    /// # Errors
    /// Returns an error if the load cannot be written to the worker's directory.
    pub fn set_load(&self, load: f32) -> Result<()> {
        write_load(&self.directory, load)
    }

    /// Waits until LiveKit has received this load.
    async fn wait_until_reported(&self, load: f32) -> Result<()> {
        // Reports are sent in order, so after the second report LiveKit has received the first.
        wait_until("the worker to report its load", REPORT_TIMEOUT, || async {
            let reports = json_lines::read::<f32>(&self.directory.join("reports"))?;
            let matching =
                reports.iter().filter(|reported| (*reported - load).abs() < 0.001).count();
            Ok((matching >= 2).then_some(()))
        })
        .await
    }
}

fn write_load(directory: &Path, load: f32) -> Result<()> {
    // Rename a complete file, because the worker may read it at any moment.
    let new = directory.join("load.new");
    std::fs::write(&new, load.to_string())?;
    std::fs::rename(new, directory.join("load")).context("failed to set the worker's load")
}
