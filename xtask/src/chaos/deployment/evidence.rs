//! Files about a finished round, for the analysis of a failure.

use anyhow::Result;
use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::AgentDispatch;
use serde_json::Value;

use super::Deployment;

impl Deployment {
    /// Writes the state of all sessions and rooms to `evidence.txt`, and the logs of all workers
    /// and LiveKit nodes. The replicas have written their own logs.
    pub async fn write_evidence(&self, outcome: &Result<()>) -> Result<()> {
        let mut sections = vec![
            outcome.as_ref().map_or_else(|error| format!("{error:#}"), |()| "passed".to_owned()),
        ];
        for (id, watch) in self.sessions.take() {
            if let Ok(api) = self.api() {
                sections.push(or_error(api.session(&id).await.map(format_json)));
                sections.push(or_error(api.timeline(&id).await.map(format_json)));
            }
            sections.push(format!("agents in the room, from LiveKit:\n{}", watch.history()));
            let dispatches = self.livekit.node().dispatches(watch.room()).await;
            let lines = dispatches.map(|all| all.iter().map(summarize).collect::<Vec<_>>());
            sections.push(or_error(lines.map(|all| format!("dispatches:\n{}", all.join("\n")))));
        }
        std::fs::write(self.home.join("evidence.txt"), sections.join("\n\n"))?;
        for (index, worker) in self.workers.iter().enumerate() {
            let output = worker.as_ref().map_or_else(|| "killed".to_owned(), Worker::output);
            std::fs::write(self.home.join(format!("worker-{}.log", index + 1)), output)?;
        }
        for (index, output) in self.livekit.outputs().into_iter().enumerate() {
            std::fs::write(self.home.join(format!("livekit-{}.log", index + 1)), output)?;
        }
        Ok(())
    }
}

/// Returns one line about a dispatch and the agents of its jobs.
fn summarize(dispatch: &AgentDispatch) -> String {
    let jobs = dispatch.state.iter().flat_map(|state| &state.jobs);
    let agents = jobs.flat_map(|job| &job.state).map(|state| {
        let status = state.status();
        format!("  {} {status:?} {}", state.participant_identity, state.error)
    });
    let agents = agents.collect::<String>();
    format!("{} of {:?}{agents}", dispatch.id, dispatch.agent_name)
}

fn or_error(text: Result<String>) -> String {
    text.unwrap_or_else(|error| format!("{error:#}"))
}

/// Formats a response. A timeline gets one line per event.
fn format_json(response: Value) -> String {
    match response {
        Value::Array(events) => events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
        response => response.to_string(),
    }
}
