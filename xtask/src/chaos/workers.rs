//! Workers that come late, never, full, overloaded, slow, or die.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use greenroom_testkit::agent::Actor;
use greenroom_testkit::pass;
use serde_json::json;

use super::stage::{AGENT, Session, Stage};
use super::watch::{SETTLED, Watch};

/// The default deadline of an agent and a look of the keeper.
const DEADLINE: Duration = Duration::from_secs(35);

/// A deadline passes, is seen, and is acted on.
const GRACE: Duration = Duration::from_secs(5);

/// How soon a room is closed once its session is over.
const TO_CLOSE: Duration = Duration::from_secs(5);

pub async fn early(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT)).await?;
    let session = stage.start(&stage.template(json!({})).await?).await?;
    stage.agent_came(&session, DEADLINE).await?;
    one_job(stage, &session).await
}

pub async fn late(stage: &mut Stage) -> Result<()> {
    let template = stage.template(json!({})).await?;
    let control = bare_dispatch(stage).await?;
    let session = stage.start(&template).await?;
    // The worker needs two seconds of its own to register.
    pass(Duration::from_secs(4)).await?;
    stage.worker(&Actor::named(AGENT)).await?;
    stage.agent_came(&session, DEADLINE).await?;
    one_job(stage, &session).await?;
    lost(&control)
}

pub async fn none(stage: &mut Stage) -> Result<()> {
    let required = json!({ "agent_deadline_seconds": 8 });
    let optional = json!({ "agent_deadline_seconds": 8, "agent_required": false });
    let required = stage.start(&stage.template(required).await?).await?;
    let optional = stage.start(&stage.template(optional).await?).await?;
    let failed = [("status", "failed"), ("end_reason", "agent_unavailable")];
    let deadline = Duration::from_secs(8);
    stage.until(&required, &failed, deadline + GRACE).await?;
    let took = required.begun.elapsed();
    ensure!(took >= deadline, "it gave up after {took:?}, before the deadline");
    stage.room_gone(&required, TO_CLOSE).await?;
    stage.until(&optional, &[("agent_status", "unavailable")], GRACE).await?;
    let _user = optional.user_enters().await?;
    let goes_on = [("status", "active"), ("agent_status", "unavailable")];
    stage.until(&optional, &goes_on, GRACE).await.map(drop)
}

pub async fn overloaded(stage: &mut Stage) -> Result<()> {
    let worker = stage.worker(&Actor::named(AGENT).loaded(0.95)).await?;
    // LiveKit learns of the load with the worker's next report.
    pass(Duration::from_secs(3)).await?;
    let template = stage.template(json!({})).await?;
    let control = bare_dispatch(stage).await?;
    let session = stage.start(&template).await?;
    pass(Duration::from_secs(8)).await?;
    ensure!(session.watch.ever() == 0, "an overloaded worker took the job: nothing was tried");
    stage.set_load(worker, 0.0)?;
    stage.agent_came(&session, DEADLINE).await?;
    one_job(stage, &session).await?;
    lost(&control)
}

pub async fn slow_boot(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT).booting(Duration::from_secs(10))).await?;
    let session = stage.start(&stage.template(json!({})).await?).await?;
    stage.agent_came(&session, DEADLINE).await?;
    one_job(stage, &session).await
}

pub async fn killed(stage: &mut Stage) -> Result<()> {
    let first = stage.worker(&Actor::named(AGENT)).await?;
    let session = stage.start(&stage.template(json!({})).await?).await?;
    stage.agent_came(&session, DEADLINE).await?;
    let before = session.watch.agents();
    let _user = session.user_enters().await?;
    stage.until(&session, &[("status", "active")], GRACE).await?;
    stage.worker(&Actor::named(AGENT)).await?;
    stage.kill_worker(first).await?;
    // LiveKit takes more than twenty seconds to notice.
    session.watch.agent_other_than(&before, Duration::from_secs(45)).await?;
    session.watch.one_agent(GRACE).await?;
    stage.until(&session, &[("status", "active"), ("agent_status", "ready")], GRACE).await.map(drop)
}

pub async fn burst(stage: &mut Stage) -> Result<()> {
    const PLACES: usize = 5;
    let (starts, workers) = if stage.long { (30, 4) } else { (12, 2) };
    for _ in 0..workers {
        stage.worker(&Actor::named(AGENT).at_most(PLACES)).await?;
    }
    let template = stage.template(json!({ "agent_deadline_seconds": 120 })).await?;
    let mut sessions = Vec::new();
    for _ in 0..starts {
        sessions.push(stage.start(&template).await?);
    }
    pass(Duration::from_secs(8)).await?;
    let without = sessions.iter().filter(|session| session.watch.ever() == 0).count();
    ensure!(without >= starts - workers * PLACES, "more jobs were taken than there are places");
    for _ in 0..without.div_ceil(PLACES) {
        stage.worker(&Actor::named(AGENT).at_most(PLACES)).await?;
    }
    let by = Instant::now() + Duration::from_mins(1);
    for session in &sessions {
        stage.agent_came(session, by.saturating_duration_since(Instant::now()) + GRACE).await?;
    }
    pass(SETTLED).await?;
    for session in &sessions {
        session.watch.still_alone()?;
        stage.shows(session, &[("status", "pending"), ("agent_status", "ready")]).await?;
    }
    Ok(())
}

/// Exactly one job was ever begun for it, its agent is there, and nobody has joined.
async fn one_job(stage: &Stage, session: &Session) -> Result<()> {
    session.watch.one_agent(GRACE).await?;
    let jobs = stage.jobs_of(&session.room)?;
    ensure!(jobs == 1, "{jobs} jobs were begun for one session");
    stage.shows(session, &[("status", "pending"), ("agent_status", "ready")]).await
}

/// The control: what LiveKit alone makes of the same trouble.
async fn bare_dispatch(stage: &Stage) -> Result<Watch> {
    let room = "control";
    stage.livekit.node().dispatch(room, AGENT, "").await?;
    Ok(stage.watch(room))
}

/// Without a loss there, the scenario would have shown nothing.
fn lost(control: &Watch) -> Result<()> {
    ensure!(control.ever() == 0, "the control got its agent without Greenroom");
    Ok(())
}
