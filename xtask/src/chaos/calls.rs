//! What users, agents and the clock do to a call.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::Actor;
use greenroom_testkit::user::Event;
use greenroom_testkit::{pass, wait_until};
use serde_json::{Value, json};

use super::stage::{AGENT, Session, Stage};

const AGENT_WITHIN: Duration = Duration::from_secs(35);

/// A fact is told, and acted on.
const GRACE: Duration = Duration::from_secs(6);

pub async fn hang_up(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT)).await?;
    let keep = stage.start(&stage.template(json!({})).await?).await?;
    let end = json!({ "on_agent_hangup": "end" });
    let end = stage.start(&stage.template(end).await?).await?;
    let mut users = Vec::new();
    for session in [&keep, &end] {
        stage.agent_came(session, AGENT_WITHIN).await?;
        let user = session.user_enters().await?;
        stage.until(session, &[("status", "active")], GRACE).await?;
        user.send("hangup", "")?;
        users.push(user);
    }
    let left = [("status", "active"), ("agent_status", "left")];
    stage.until(&keep, &left, GRACE).await?;
    stage.until(&end, &[("status", "ended"), ("end_reason", "agent_left")], GRACE).await?;
    stage.room_gone(&end, GRACE).await?;
    // Nobody sends for the agent again.
    pass(Duration::from_secs(8)).await?;
    keep.watch.no_agent(GRACE).await?;
    ensure!(keep.watch.ever() == 1, "{} agents came to a call", keep.watch.ever());
    stage.shows(&keep, &left).await
}

pub async fn reload(stage: &mut Stage) -> Result<()> {
    let window = Duration::from_secs(5);
    stage.worker(&Actor::named(AGENT)).await?;
    let template = stage.template(json!({ "reconnect_window_seconds": 5 })).await?;
    let session = stage.start(&template).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    let mut user = session.user_enters().await?;
    stage.until(&session, &[("status", "active")], GRACE).await?;
    user.reload().await?;
    goes_on(stage, &session, window).await?;
    let second_tab = session.user_enters().await?;
    let put_out = Event::Disconnected { reason: "DUPLICATE_IDENTITY".to_owned() };
    wait_until("the first tab to be put out", GRACE, || async {
        Ok(user.seen()?.iter().any(|seen| seen.event == put_out).then_some(()))
    })
    .await?;
    goes_on(stage, &session, window).await?;
    second_tab.leave().await?;
    let ended = [("status", "ended"), ("end_reason", "user_left")];
    stage.until(&session, &ended, window + GRACE).await?;
    stage.room_gone(&session, GRACE).await
}

pub async fn nobody_joins(stage: &mut Stage) -> Result<()> {
    let window = Duration::from_secs(30);
    stage.worker(&Actor::named(AGENT)).await?;
    let template = stage.template(json!({ "join_window_seconds": 30 })).await?;
    let session = stage.start(&template).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    session.watch.one_agent(GRACE).await?;
    let expired = [("status", "expired"), ("end_reason", "join_window")];
    stage.until(&session, &expired, window + GRACE).await?;
    let took = session.begun.elapsed();
    ensure!(took >= window, "it expired after {took:?}, before its window closed");
    stage.room_gone(&session, GRACE).await
}

pub async fn max_duration(stage: &mut Stage) -> Result<()> {
    const TOPIC: &str = "greenroom.ending";
    stage.worker(&Actor::named(AGENT)).await?;
    let template = stage.template(json!({ "max_duration_seconds": 60 })).await?;
    let session = stage.start(&template).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    let mut user = session.user_enters().await?;
    stage.until(&session, &[("status", "active")], GRACE).await?;
    let active = std::time::Instant::now();
    let warning = user.receive(TOPIC, Duration::from_secs(30) + GRACE).await?;
    let warned = active.elapsed();
    ensure!(warned >= Duration::from_secs(25), "the warning came after {warned:?}, too early");
    let warning: Value = serde_json::from_str(&warning).context("the warning is no JSON")?;
    ensure!(
        warning["session_id"] == session.id && warning["reason"] == "max_duration",
        "the warning says {warning}"
    );
    session.watch.one_agent(GRACE).await?;
    let ended = [("status", "ended"), ("end_reason", "max_duration")];
    stage.until(&session, &ended, Duration::from_secs(35)).await?;
    let lasted = active.elapsed();
    ensure!(lasted >= Duration::from_secs(55), "it was over after {lasted:?}, too early");
    user.disconnected(GRACE).await?;
    let warnings = user.received(TOPIC)?.len();
    ensure!(warnings == 1, "the user was warned {warnings} times");
    stage.room_gone(&session, GRACE).await
}

/// The call outlives the time after which it would be over if the user had left it.
async fn goes_on(stage: &Stage, session: &Session, window: Duration) -> Result<()> {
    pass(window + Duration::from_secs(2)).await?;
    stage.shows(session, &[("status", "active"), ("agent_status", "ready")]).await?;
    session.watch.one_agent(GRACE).await
}
