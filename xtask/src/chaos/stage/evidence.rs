//! What is kept of a round, for whoever looks into it.

use anyhow::Result;
use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::AgentDispatch;
use serde_json::Value;

use super::Stage;

impl Stage {
    /// Writes down what is known of its sessions, beside the logs of everybody.
    pub async fn keep_evidence(&self, outcome: &Result<()>) -> Result<()> {
        let mut told = vec![
            outcome.as_ref().map_or_else(|error| format!("{error:#}"), |()| "passed".to_owned()),
        ];
        for (id, watch) in self.started.take() {
            if let Ok(api) = self.api() {
                told.push(said(api.session(&id).await.map(readable)));
                told.push(said(api.timeline(&id).await.map(readable)));
            }
            told.push(format!("agents in the room, by LiveKit:\n{}", watch.story()));
            let dispatches = self.livekit.node().dispatches(watch.room()).await;
            let dispatches = dispatches.map(|all| all.iter().map(in_short).collect::<Vec<_>>());
            told.push(said(dispatches.map(|all| format!("dispatches:\n{}", all.join("\n")))));
        }
        std::fs::write(self.home.join("evidence.txt"), told.join("\n\n"))?;
        for (number, worker) in self.workers.iter().enumerate() {
            let output = worker.as_ref().map_or_else(|| "killed".to_owned(), Worker::output);
            std::fs::write(self.home.join(format!("worker-{}.log", number + 1)), output)?;
        }
        for (number, output) in self.livekit.outputs().into_iter().enumerate() {
            std::fs::write(self.home.join(format!("livekit-{}.log", number + 1)), output)?;
        }
        Ok(())
    }
}

/// A dispatch and the agents its jobs are.
fn in_short(dispatch: &AgentDispatch) -> String {
    let jobs = dispatch.state.iter().flat_map(|state| &state.jobs);
    let agents = jobs.flat_map(|job| &job.state).map(|state| {
        let status = state.status();
        format!("  {} {status:?} {}", state.participant_identity, state.error)
    });
    let agents = agents.collect::<String>();
    format!("{} of {:?}{agents}", dispatch.id, dispatch.agent_name)
}

fn said(answer: Result<String>) -> String {
    answer.unwrap_or_else(|error| format!("{error:#}"))
}

fn readable(answer: Value) -> String {
    match answer {
        // A timeline: one event, one line.
        Value::Array(events) => events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
        answer => answer.to_string(),
    }
}
