//! LiveKit restarted, one of its nodes killed, its webhooks lost.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use greenroom_testkit::agent::Actor;
use greenroom_testkit::pass;
use greenroom_testkit::user::Present;
use serde_json::json;

use super::stage::{AGENT, LiveKit, Session, Stage};

const AGENT_WITHIN: Duration = Duration::from_secs(35);
const GRACE: Duration = Duration::from_secs(6);

/// How long calls here wait for their users.
const WINDOW: Duration = Duration::from_secs(20);

pub async fn livekit_killed(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT)).await?;
    let template = stage.template(json!({ "reconnect_window_seconds": 20 })).await?;
    let session = stage.start(&template).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    let user = in_call(stage, &session).await?;
    stage.livekit.node_mut().stop().await?;
    stage.livekit.node_mut().restart().await?;
    by_the_table(stage, &session, user).await
}

pub async fn node_killed(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT)).await?;
    let template = stage.template(json!({ "reconnect_window_seconds": 20 })).await?;
    let session = on_the_other_node(stage, &template).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    let user = in_call(stage, &session).await?;
    let LiveKit::Two(cluster) = &mut stage.livekit else { bail!("this needs two nodes") };
    cluster.nodes_mut()[1].stop().await?;
    by_the_table(stage, &session, user).await
}

pub async fn no_webhooks(stage: &mut Stage) -> Result<()> {
    let (reconcile, window) = (Duration::from_secs(2), Duration::from_secs(5));
    stage.worker(&Actor::named(AGENT)).await?;
    let template = stage.template(json!({ "reconnect_window_seconds": 5 })).await?;
    let session = stage.start(&template).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    let user = session.user_enters().await?;
    stage.until(&session, &[("status", "active")], 2 * reconcile + GRACE).await?;
    session.watch.one_agent(GRACE).await?;
    user.leave().await?;
    let ended = [("status", "ended"), ("end_reason", "user_left")];
    stage.until(&session, &ended, 2 * reconcile + window + Duration::from_secs(2)).await?;
    stage.room_gone(&session, GRACE).await
}

/// LiveKit chooses the node of a room: starts sessions until it is not the one everybody talks to.
async fn on_the_other_node(stage: &Stage, template: &str) -> Result<Session> {
    let LiveKit::Two(cluster) = &stage.livekit else { bail!("this needs two nodes") };
    for _ in 0..20 {
        let session = stage.start(template).await?;
        if cluster.holder(&session.room).await? == 1 {
            return Ok(session);
        }
        stage.api()?.end(&session.id).await?;
    }
    bail!("LiveKit put twenty rooms on the same node")
}

async fn in_call(stage: &Stage, session: &Session) -> Result<Present> {
    let user = session.user_enters().await?;
    stage.until(session, &[("status", "active"), ("agent_status", "ready")], GRACE).await?;
    session.watch.one_agent(GRACE).await?;
    Ok(user)
}

/// A user whose SDK comes back within the reconnect window keeps the call, with one agent; else the
/// call is over, because LiveKit lost its room.
async fn by_the_table(stage: &Stage, session: &Session, mut user: Present) -> Result<()> {
    let back = user.reconnected(WINDOW).await.is_ok();
    let goes_on = [("status", "active"), ("agent_status", "ready")];
    if !back {
        let ended = [("status", "ended"), ("end_reason", "room_closed")];
        stage.until(session, &ended, WINDOW + GRACE).await?;
        return session.watch.no_agent(GRACE).await;
    }
    // If the agent did not come back, it is missed, and another one sent for.
    session.watch.alone(AGENT_WITHIN).await?;
    // The window passes, so that a user who is taken for gone would show.
    pass(WINDOW).await?;
    session.watch.still_alone()?;
    stage.until(session, &goes_on, GRACE).await?;
    let present = stage.livekit.node().participants(&session.room).await?;
    let present: Vec<&str> = present.iter().map(|one| one.identity.as_str()).collect();
    ensure!(
        present.len() == 2 && present.contains(&"ann"),
        "in the room are {present:?}, instead of the user and one agent"
    );
    Ok(())
}
