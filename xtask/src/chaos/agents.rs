//! Scenarios in which an agent leaves early, never joins, or is dispatched twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::sleep_for;
use serde_json::json;

use super::deployment::{AGENT, AGENT_TIMEOUT, Deployment};
use super::watch::SETTLE_TIME;

/// Maximum time until Greenroom has reacted to a change in LiveKit.
const REACTION_TIMEOUT: Duration = Duration::from_secs(6);

/// After an agent has hung up, Greenroom dispatches it again only when a user joins, and only once.
pub async fn leaves_at_once(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker(&ScriptedAgent::named(AGENT).leaving_at_once()).await?;
    let template = deployment.create_template(json!({})).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_fields(&session, &[("agent_status", "left")], AGENT_TIMEOUT).await?;
    let _user = session.join_user().await?;
    let left = [("status", "active"), ("agent_status", "left")];
    deployment.wait_for_jobs(&session.room, 2, AGENT_TIMEOUT).await?;
    deployment.wait_for_fields(&session, &left, REACTION_TIMEOUT).await?;
    sleep_for(Duration::from_secs(8)).await?;
    deployment.check_fields(&session, &left).await?;
    let jobs = deployment.job_count(&session.room)?;
    ensure!(
        jobs == 2,
        "{jobs} jobs were started instead of 2, one for the start and one for the user"
    );
    Ok(())
}

/// A job that a worker accepted is not dispatched again. The session fails at the agent's deadline.
pub async fn never_joins(deployment: &mut Deployment) -> Result<()> {
    let deadline = Duration::from_secs(10);
    deployment.start_worker(&ScriptedAgent::named(AGENT).never_joining()).await?;
    let template = json!({ "agent_deadline_seconds": 10 });
    let template = deployment.create_template(template).await?;
    let session = deployment.start_session(&template).await?;
    let failed = [("status", "failed"), ("end_reason", "agent_unavailable")];
    deployment.wait_for_fields(&session, &failed, deadline + REACTION_TIMEOUT).await?;
    deployment.wait_until_room_closed(&session, REACTION_TIMEOUT).await?;
    let jobs = deployment.job_count(&session.room)?;
    ensure!(jobs == 1, "{jobs} jobs were started, although a worker accepted the first one");
    Ok(())
}

/// Another client dispatches the same agent. One agent remains.
pub async fn duplicate_dispatch(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = deployment.create_template(json!({})).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    let _user = session.join_user().await?;
    deployment.wait_for_fields(&session, &[("status", "active")], REACTION_TIMEOUT).await?;
    deployment.livekit.node().dispatch(&session.room, AGENT, "").await?;
    // Wait for the job and not for the second agent, which may leave before a poll sees it.
    deployment.wait_for_jobs(&session.room, 2, AGENT_TIMEOUT).await?;
    sleep_for(SETTLE_TIME).await?;
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await?;
    deployment.check_fields(&session, &[("status", "active"), ("agent_status", "ready")]).await
}
