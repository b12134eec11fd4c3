//! Two replicas on one database.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::Actor;
use serde_json::json;
use tokio::task::JoinSet;

use super::stage::{AGENT, Stage};
use crate::api::text;

const AGENT_WITHIN: Duration = Duration::from_secs(35);
const GRACE: Duration = Duration::from_secs(5);

pub async fn replays(stage: &mut Stage) -> Result<()> {
    stage.worker(&Actor::named(AGENT)).await?;
    let template = stage.template(json!({})).await?;
    let begun = Instant::now();
    let mut racing = JoinSet::new();
    for number in 0..16 {
        let (api, template) = (stage.replica(number % 2)?, template.clone());
        racing.spawn(async move { api.start(&template, "ann", Some("one key")).await });
    }
    let answers = racing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let ids = answers.iter().map(|answer| text(answer, "session_id"));
    let ids = ids.collect::<Result<BTreeSet<_>>>()?;
    ensure!(ids.len() == 1, "sixteen replays made the sessions {ids:?}");
    let session = stage.started(answers.first().context("there are sixteen")?, begun)?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    session.watch.one_agent(GRACE).await?;
    let rooms = stage.livekit.node().rooms().await?.len();
    let sessions = stage.api()?.sessions().await?;
    let sessions = sessions.as_array().map_or(0, Vec::len);
    let jobs = stage.jobs_of(&session.room)?;
    ensure!(
        (sessions, rooms, jobs) == (1, 1, 1),
        "sixteen replays made {sessions} sessions, {rooms} rooms and {jobs} jobs"
    );
    Ok(())
}

pub async fn killed(stage: &mut Stage) -> Result<()> {
    let template = stage.template(json!({})).await?;
    let session = stage.start(&template).await?;
    stage.kill_replica(0).await?;
    stage.worker(&Actor::named(AGENT)).await?;
    stage.agent_came(&session, AGENT_WITHIN).await?;
    session.watch.one_agent(GRACE).await?;
    let jobs = stage.jobs_of(&session.room)?;
    ensure!(jobs == 1, "{jobs} jobs were begun for one session");
    stage.shows(&session, &[("status", "pending"), ("agent_status", "ready")]).await
}
