//! Scenarios in which workers are late, absent, busy, overloaded or slow, or are killed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::sleep_for;
use serde_json::json;

use super::deployment::{AGENT, AGENT_TIMEOUT, Deployment, Session};
use super::watch::{SETTLE_TIME, Watch};

/// Maximum time until Greenroom has reacted to a change in LiveKit or to a deadline.
const REACTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time from the end of a session until its room is closed.
const ROOM_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of updates of the row of a session without a fault, before its last check.
const MAX_ROW_UPDATES: i64 = 11;

pub async fn early(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = deployment.create_template(json!({ "reconnect_window_seconds": 5 })).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    check_one_job(deployment, &session).await?;
    let user = session.join_user().await?;
    deployment.wait_for_fields(&session, &[("status", "active")], ROOM_CLOSE_TIMEOUT).await?;
    user.leave().await?;
    let ended = [("status", "ended"), ("end_reason", "user_left")];
    deployment.wait_for_fields(&session, &ended, ROOM_CLOSE_TIMEOUT * 3).await?;
    let updates = deployment.row_updates(&session).await?;
    ensure!(updates <= MAX_ROW_UPDATES, "the session cost {updates} row updates");
    Ok(())
}

pub async fn late(deployment: &mut Deployment) -> Result<()> {
    let template = deployment.create_template(json!({})).await?;
    let control = dispatch_control(deployment).await?;
    let session = deployment.start_session(&template).await?;
    // Starting and registering the worker takes another 2 s.
    sleep_for(Duration::from_secs(4)).await?;
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    check_one_job(deployment, &session).await?;
    check_control_lost(&control)
}

pub async fn none(deployment: &mut Deployment) -> Result<()> {
    let required = json!({ "agent_deadline_seconds": 8 });
    let optional = json!({ "agent_deadline_seconds": 8, "agent_required": false });
    let required = deployment.create_template(required).await?;
    let required = deployment.start_session(&required).await?;
    let optional = deployment.create_template(optional).await?;
    let optional = deployment.start_session(&optional).await?;
    let failed = [("status", "failed"), ("end_reason", "agent_unavailable")];
    let deadline = Duration::from_secs(8);
    deployment.wait_for_fields(&required, &failed, deadline + REACTION_TIMEOUT).await?;
    let took = required.begun.elapsed();
    ensure!(took >= deadline, "the session failed after {took:?}, before the agent's deadline");
    deployment.wait_until_room_closed(&required, ROOM_CLOSE_TIMEOUT).await?;
    let unavailable = [("agent_status", "unavailable")];
    deployment.wait_for_fields(&optional, &unavailable, REACTION_TIMEOUT).await?;
    let _user = optional.join_user().await?;
    let active = [("status", "active"), ("agent_status", "unavailable")];
    deployment.wait_for_fields(&optional, &active, REACTION_TIMEOUT).await
}

pub async fn overloaded(deployment: &mut Deployment) -> Result<()> {
    let agent = ScriptedAgent::named(AGENT).initial_load(0.95);
    let worker = deployment.start_worker(&agent).await?;
    let template = deployment.create_template(json!({})).await?;
    let control = dispatch_control(deployment).await?;
    let session = deployment.start_session(&template).await?;
    sleep_for(Duration::from_secs(8)).await?;
    ensure!(
        session.watch.seen_agent_count() == 0,
        "the overloaded worker accepted the job, so the scenario has tested nothing"
    );
    deployment.set_worker_load(worker, 0.0)?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    check_one_job(deployment, &session).await?;
    check_control_lost(&control)
}

pub async fn slow_boot(deployment: &mut Deployment) -> Result<()> {
    let agent = ScriptedAgent::named(AGENT).join_delay(Duration::from_secs(10));
    deployment.start_worker(&agent).await?;
    let template = deployment.create_template(json!({})).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    check_one_job(deployment, &session).await
}

pub async fn killed(deployment: &mut Deployment) -> Result<()> {
    let first_worker = deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    let template = deployment.create_template(json!({})).await?;
    let session = deployment.start_session(&template).await?;
    deployment.wait_for_agent(&session, AGENT_TIMEOUT).await?;
    let lost_agents = session.watch.agents();
    let _user = session.join_user().await?;
    deployment.wait_for_fields(&session, &[("status", "active")], REACTION_TIMEOUT).await?;
    deployment.start_worker(&ScriptedAgent::named(AGENT)).await?;
    deployment.kill_worker(first_worker).await?;
    // LiveKit takes more than 20 s to notice that the agent is gone.
    session.watch.wait_for_new_agent(&lost_agents, Duration::from_secs(45)).await?;
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await?;
    let active = [("status", "active"), ("agent_status", "ready")];
    deployment.wait_for_fields(&session, &active, REACTION_TIMEOUT).await
}

pub async fn burst(deployment: &mut Deployment) -> Result<()> {
    /// Maximum number of concurrent jobs per worker.
    const MAX_JOBS: usize = 5;
    let (starts, workers) = if deployment.large_bursts { (30, 4) } else { (12, 2) };
    let agent = ScriptedAgent::named(AGENT).max_jobs(MAX_JOBS);
    for _ in 0..workers {
        deployment.start_worker(&agent).await?;
    }
    let template = json!({ "agent_deadline_seconds": 120 });
    let template = deployment.create_template(template).await?;
    let mut sessions = Vec::new();
    for _ in 0..starts {
        sessions.push(deployment.start_session(&template).await?);
    }
    sleep_for(Duration::from_secs(8)).await?;
    let without_agent =
        sessions.iter().filter(|session| session.watch.seen_agent_count() == 0).count();
    ensure!(
        without_agent >= starts - workers * MAX_JOBS,
        "only {without_agent} of {starts} sessions lack an agent: the workers exceeded their limit"
    );
    for _ in 0..without_agent.div_ceil(MAX_JOBS) {
        deployment.start_worker(&agent).await?;
    }
    let deadline = Instant::now() + Duration::from_mins(1);
    for session in &sessions {
        let remaining = deadline.saturating_duration_since(Instant::now());
        deployment.wait_for_agent(session, remaining + REACTION_TIMEOUT).await?;
    }
    sleep_for(SETTLE_TIME).await?;
    let pending = [("status", "pending"), ("agent_status", "ready")];
    for session in &sessions {
        session.watch.check_one_agent()?;
        deployment.check_fields(session, &pending).await?;
    }
    Ok(())
}

/// Checks that exactly one job was started, its agent is in the room, and no user has joined.
async fn check_one_job(deployment: &Deployment, session: &Session) -> Result<()> {
    session.watch.settle_on_one_agent(REACTION_TIMEOUT).await?;
    let jobs = deployment.job_count(&session.room)?;
    ensure!(jobs == 1, "{jobs} jobs were started for one session");
    deployment.check_fields(session, &[("status", "pending"), ("agent_status", "ready")]).await
}

/// Makes the control of a scenario: a dispatch without Greenroom under the same fault.
async fn dispatch_control(deployment: &Deployment) -> Result<Watch> {
    let room = "control";
    deployment.livekit.node().dispatch(room, AGENT, "").await?;
    Ok(deployment.watch_room(room))
}

/// Checks that LiveKit lost the control's dispatch. Otherwise the fault had no effect.
fn check_control_lost(control: &Watch) -> Result<()> {
    ensure!(
        control.seen_agent_count() == 0,
        "the control got its agent without Greenroom, so the scenario has tested nothing"
    );
    Ok(())
}
