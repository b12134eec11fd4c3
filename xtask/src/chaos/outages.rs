//! Scenarios in which LiveKit restarts, loses a node, or loses its webhooks.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::sleep_for;
use greenroom_testkit::user::LiveParticipant;
use serde_json::json;

use super::deployment::{AGENT, AGENT_TIMEOUT, Deployment, LiveKit, Session};

/// Maximum time until Greenroom has reacted to a change in LiveKit.
const REACTION_TIMEOUT: Duration = Duration::from_secs(6);

/// The reconnect window of the sessions that lose their LiveKit server or node.
const RECONNECT_WINDOW: Duration = Duration::from_secs(20);

pub async fn livekit_killed(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = json!({ "reconnect_window_seconds": 20 });
    let template = deployment.create_template(template).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    let user = start_call(deployment, &session).await?;
    deployment.livekit.node_mut().stop().await?;
    deployment.livekit.node_mut().restart().await?;
    check_recovery(deployment, &session, user).await
}

pub async fn node_killed(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = json!({ "reconnect_window_seconds": 20 });
    let template = deployment.create_template(template).await?;
    let session = start_on_second_node(deployment, &template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    let user = start_call(deployment, &session).await?;
    let LiveKit::Two(cluster) = &mut deployment.livekit else {
        bail!("this scenario needs two LiveKit nodes")
    };
    cluster.nodes_mut()[1].stop().await?;
    check_recovery(deployment, &session, user).await
}

pub async fn no_webhooks(deployment: &mut Deployment) -> Result<()> {
    let (reconcile, window) = (Duration::from_secs(2), Duration::from_secs(5));
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = json!({ "reconnect_window_seconds": 5 });
    let template = deployment.create_template(template).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    let user = session.join_user().await?;
    let timeout = 2 * reconcile + REACTION_TIMEOUT;
    deployment.wait_for_fields(&session, &[("status", "active")], timeout).await?;
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await?;
    user.leave().await?;
    let ended = [("status", "ended"), ("end_reason", "user_left")];
    let timeout = 2 * reconcile + window + Duration::from_secs(2);
    deployment.wait_for_fields(&session, &ended, timeout).await?;
    deployment.wait_until_room_closed(&session, REACTION_TIMEOUT).await
}

/// Starts sessions until one has its room on the second node, which the clients do not use. LiveKit
/// chooses the node of each room.
async fn start_on_second_node(deployment: &Deployment, template: &str) -> Result<Session> {
    let LiveKit::Two(cluster) = &deployment.livekit else {
        bail!("this scenario needs two LiveKit nodes")
    };
    for _ in 0..20 {
        let session = deployment.start_session(template).await?;
        if cluster.node_of_room(&session.room).await? == 1 {
            return Ok(session);
        }
        deployment.api()?.end(&session.id).await?;
    }
    bail!("LiveKit created 20 rooms, but all on the first node")
}

async fn start_call(deployment: &Deployment, session: &Session) -> Result<LiveParticipant> {
    let user = session.join_user().await?;
    let active = [("status", "active"), ("agent_status", "ready")];
    deployment.wait_for_fields(session, &active, REACTION_TIMEOUT).await?;
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await?;
    Ok(user)
}

/// Checks that the call continues with one agent if the user's SDK reconnects within the window.
/// Otherwise checks that the call has ended, because LiveKit lost its room.
async fn check_recovery(
    deployment: &Deployment,
    session: &Session,
    mut user: LiveParticipant,
) -> Result<()> {
    if user.wait_for_reconnect(RECONNECT_WINDOW).await.is_err() {
        let ended = [("status", "ended"), ("end_reason", "room_closed")];
        let timeout = RECONNECT_WINDOW + REACTION_TIMEOUT;
        deployment.wait_for_fields(session, &ended, timeout).await?;
        return session.watch.wait_for_no_agent(REACTION_TIMEOUT).await;
    }
    // Long enough for a replacement, in case the agent itself does not reconnect.
    session.watch.wait_for_one_agent(AGENT_TIMEOUT).await?;
    // The call would end within this time if Greenroom believed that the user was gone.
    sleep_for(RECONNECT_WINDOW).await?;
    session.watch.check_one_agent()?;
    let active = [("status", "active"), ("agent_status", "ready")];
    deployment.wait_for_fields(session, &active, REACTION_TIMEOUT).await?;
    let participants = deployment.livekit.node().participants(&session.room).await?;
    let participants: Vec<&str> = participants.iter().map(|one| one.identity.as_str()).collect();
    ensure!(
        participants.len() == 2 && participants.contains(&"ann"),
        "the room contains {participants:?} instead of the user and one agent"
    );
    Ok(())
}
