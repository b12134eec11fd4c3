//! Scenarios in which a user or an agent leaves a call, or a time limit passes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::user::Event;
use greenroom_testkit::{sleep_for, wait_until};
use serde_json::{Value, json};

use super::deployment::{AGENT, AGENT_TIMEOUT, Deployment, Session};

/// Maximum time until Greenroom has reacted to a change in LiveKit.
const REACTION_TIMEOUT: Duration = Duration::from_secs(6);

pub async fn hang_up(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let keep = deployment.create_template(json!({})).await?;
    let keep = deployment.start_session(&keep).await?;
    let end = deployment.create_template(json!({ "on_agent_hangup": "end" })).await?;
    let end = deployment.start_session(&end).await?;
    let mut users = Vec::new();
    for session in [&keep, &end] {
        deployment.wait_for_agent(session, AGENT_TIMEOUT).await?;
        let user = session.join_user().await?;
        deployment.wait_for_fields(session, &[("status", "active")], REACTION_TIMEOUT).await?;
        user.send_data("hangup", "")?;
        users.push(user);
    }
    let left = [("status", "active"), ("agent_status", "left")];
    deployment.wait_for_fields(&keep, &left, REACTION_TIMEOUT).await?;
    let ended = [("status", "ended"), ("end_reason", "agent_left")];
    deployment.wait_for_fields(&end, &ended, REACTION_TIMEOUT).await?;
    deployment.wait_until_room_closed(&end, REACTION_TIMEOUT).await?;
    // The agent must not be dispatched again within this time.
    sleep_for(Duration::from_secs(8)).await?;
    keep.watch.wait_for_no_agent(REACTION_TIMEOUT).await?;
    let agents = keep.watch.seen_agent_count();
    ensure!(agents == 1, "{agents} agents joined the call instead of one");
    deployment.check_fields(&keep, &left).await
}

pub async fn reload(deployment: &mut Deployment) -> Result<()> {
    let window = Duration::from_secs(5);
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = json!({ "reconnect_window_seconds": 5 });
    let template = deployment.create_template(template).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    let mut user = session.join_user().await?;
    deployment.wait_for_fields(&session, &[("status", "active")], REACTION_TIMEOUT).await?;
    user.reload().await?;
    check_call_continues(deployment, &session, window).await?;
    let second_tab = session.join_user().await?;
    let replaced = Event::Disconnected { reason: "DUPLICATE_IDENTITY".to_owned() };
    wait_until("the first tab to be disconnected", REACTION_TIMEOUT, || async {
        Ok(user.events()?.iter().any(|timed| timed.event == replaced).then_some(()))
    })
    .await?;
    check_call_continues(deployment, &session, window).await?;
    second_tab.leave().await?;
    let ended = [("status", "ended"), ("end_reason", "user_left")];
    deployment.wait_for_fields(&session, &ended, window + REACTION_TIMEOUT).await?;
    deployment.wait_until_room_closed(&session, REACTION_TIMEOUT).await
}

pub async fn user_never_joins(deployment: &mut Deployment) -> Result<()> {
    let window = Duration::from_secs(30);
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = json!({ "join_window_seconds": 30 });
    let template = deployment.create_template(template).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await?;
    let expired = [("status", "expired"), ("end_reason", "join_window")];
    deployment.wait_for_fields(&session, &expired, window + REACTION_TIMEOUT).await?;
    let took = session.begun.elapsed();
    ensure!(took >= window, "the session expired after {took:?}, before its join window closed");
    deployment.wait_until_room_closed(&session, REACTION_TIMEOUT).await
}

pub async fn max_duration(deployment: &mut Deployment) -> Result<()> {
    const TOPIC: &str = "greenroom.ending";
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = json!({ "max_duration_seconds": 60 });
    let template = deployment.create_template(template).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    let mut user = session.join_user().await?;
    deployment.wait_for_fields(&session, &[("status", "active")], REACTION_TIMEOUT).await?;
    let active_since = Instant::now();
    let warning = user.wait_for_data(TOPIC, Duration::from_secs(30) + REACTION_TIMEOUT).await?;
    let warned_after = active_since.elapsed();
    ensure!(
        warned_after >= Duration::from_secs(25),
        "the warning came after {warned_after:?} instead of 30 s, which is too early"
    );
    let warning: Value = serde_json::from_str(&warning).context("the warning is not JSON")?;
    ensure!(
        warning["session_id"] == session.id && warning["reason"] == "max_duration",
        "the warning names another session or reason: {warning}"
    );
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await?;
    let ended = [("status", "ended"), ("end_reason", "max_duration")];
    deployment.wait_for_fields(&session, &ended, Duration::from_secs(35)).await?;
    let ended_after = active_since.elapsed();
    ensure!(
        ended_after >= Duration::from_secs(55),
        "the session ended after {ended_after:?} instead of 60 s, which is too early"
    );
    user.wait_for_disconnect(REACTION_TIMEOUT).await?;
    let warnings = user.received_data(TOPIC)?.len();
    ensure!(warnings == 1, "the user received {warnings} warnings instead of one");
    deployment.wait_until_room_closed(&session, REACTION_TIMEOUT).await
}

/// Checks that the call is still active after the reconnect window, when it would have ended if
/// Greenroom believed that the user was gone.
async fn check_call_continues(
    deployment: &Deployment,
    session: &Session,
    window: Duration,
) -> Result<()> {
    sleep_for(window + Duration::from_secs(2)).await?;
    deployment.check_fields(session, &[("status", "active"), ("agent_status", "ready")]).await?;
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await
}
