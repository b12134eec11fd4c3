//! Scenarios with two replicas on one database.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::sleep_for;
use serde_json::json;
use tokio::task::JoinSet;

use super::deployment::{AGENT, AGENT_TIMEOUT, Deployment};
use crate::api::text;

/// Maximum time until the room contains exactly one agent, after the API has reported the agent.
const SINGLE_AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of sessions of which each replica probably holds some.
const SESSIONS_OF_TWO_REPLICAS: usize = 6;

const STOPPED_FOR: Duration = Duration::from_secs(10);

/// Time for the replica to act on what it knew before it was stopped.
const AFTER_CONTINUATION: Duration = Duration::from_secs(8);

pub async fn replays(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = deployment.create_template(json!({})).await?;
    let begun = Instant::now();
    let mut racing = JoinSet::new();
    for number in 0..16 {
        let (api, template) = (deployment.replica_api(number % 2)?, template.clone());
        racing.spawn(async move { api.start(&template, "ann", Some("one key")).await });
    }
    let responses = racing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let ids = responses.iter().map(|response| text(response, "session_id"));
    let ids = ids.collect::<Result<BTreeSet<_>>>()?;
    ensure!(ids.len() == 1, "16 replays started the sessions {ids:?} instead of one session");
    let response = responses.first().context("there are 16 responses")?;
    let session = deployment.watch_session(response, begun)?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    session.watch.settle_on_one_agent(SINGLE_AGENT_TIMEOUT).await?;
    let rooms = deployment.livekit.node().rooms().await?.len();
    let sessions = deployment.api()?.sessions().await?;
    let sessions = sessions.as_array().map_or(0, Vec::len);
    let jobs = deployment.job_count(&session.room)?;
    ensure!(
        (sessions, rooms, jobs) == (1, 1, 1),
        "16 replays created {sessions} sessions, {rooms} rooms and {jobs} jobs instead of one each"
    );
    Ok(())
}

pub async fn killed(deployment: &mut Deployment) -> Result<()> {
    let template = deployment.create_template(json!({})).await?;
    let session = deployment.start_session(&template).await?;
    deployment.kill_replica(0).await?;
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    session.watch.settle_on_one_agent(SINGLE_AGENT_TIMEOUT).await?;
    let jobs = deployment.job_count(&session.room)?;
    ensure!(jobs == 1, "{jobs} jobs were started for one session");
    deployment.check_fields(&session, &[("status", "pending"), ("agent_status", "ready")]).await
}

/// The stopped replica holds half of the sessions, on average, and its lease expires.
pub async fn stopped(deployment: &mut Deployment) -> Result<()> {
    let template = deployment.create_template(json!({})).await?;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS_OF_TWO_REPLICAS {
        sessions.push(deployment.start_session(&template).await?);
    }
    deployment.signal_replica(1, "STOP")?;
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    for session in &sessions {
        deployment.wait_for_agent(session, AGENT_TIMEOUT).await?;
    }
    // Longer than the lease, so that the replica has old observations when it continues.
    sleep_for(STOPPED_FOR).await?;
    deployment.signal_replica(1, "CONT")?;
    sleep_for(AFTER_CONTINUATION).await?;
    for session in &sessions {
        session.watch.settle_on_one_agent(SINGLE_AGENT_TIMEOUT).await?;
        let jobs = deployment.job_count(&session.room)?;
        ensure!(jobs == 1, "{jobs} jobs were started for one session");
        let fields = [("status", "pending"), ("agent_status", "ready")];
        deployment.check_fields(session, &fields).await?;
    }
    Ok(())
}
