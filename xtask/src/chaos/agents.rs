//! Agents that do what no agent should.

use std::time::Duration;

use anyhow::{Result, ensure};
use greenroom_testkit::agent::Actor;
use greenroom_testkit::pass;
use serde_json::json;

use super::stage::{AGENT, Stage};
use super::watch::SETTLED;

const AGENT_WITHIN: Duration = Duration::from_secs(35);

/// A fact is told, and acted on.
const GRACE: Duration = Duration::from_secs(6);

/// It hung up: nobody sends for it again, until a user comes, and then once.
pub async fn leaves_at_once(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT).leaving_at_once()).await?;
    let session = stage.start(&stage.template(json!({})).await?).await?;
    stage.until(&session, &[("agent_status", "left")], AGENT_WITHIN).await?;
    let _user = session.user_enters().await?;
    let left = [("status", "active"), ("agent_status", "left")];
    stage.jobs_become(&session.room, 2, AGENT_WITHIN).await?;
    stage.until(&session, &left, GRACE).await?;
    pass(Duration::from_secs(8)).await?;
    stage.shows(&session, &left).await?;
    let jobs = stage.jobs_of(&session.room)?;
    ensure!(jobs == 2, "{jobs} jobs were begun for one user who came");
    Ok(())
}

/// Its job is taken, so that nobody else is sent for, and its deadline passes.
pub async fn never_joins(stage: &mut Stage) -> Result<()> {
    let deadline = Duration::from_secs(10);
    stage.worker(&Actor::named(AGENT).never_joining()).await?;
    let template = stage.template(json!({ "agent_deadline_seconds": 10 })).await?;
    let session = stage.start(&template).await?;
    let failed = [("status", "failed"), ("end_reason", "agent_unavailable")];
    stage.until(&session, &failed, deadline + GRACE).await?;
    stage.room_gone(&session, GRACE).await?;
    let jobs = stage.jobs_of(&session.room)?;
    ensure!(jobs == 1, "{jobs} jobs were begun, though the first was taken");
    Ok(())
}

/// Somebody else asks for it, too.
pub async fn asked_for_twice(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT)).await?;
    let session = stage.start(&stage.template(json!({})).await?).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    let _user = session.user_enters().await?;
    stage.until(&session, &[("status", "active")], GRACE).await?;
    stage.livekit.node().dispatch(&session.room, AGENT, "").await?;
    // It may be gone before a look at the room sees it, or not be in yet.
    stage.jobs_become(&session.room, 2, AGENT_WITHIN).await?;
    pass(SETTLED).await?;
    session.watch.one_agent(GRACE).await?;
    stage.shows(&session, &[("status", "active"), ("agent_status", "ready")]).await
}
