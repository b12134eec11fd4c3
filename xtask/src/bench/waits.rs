//! What a thousand requests cost that are held until an agent is there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use greenroom_testkit::pass;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::figure::{Finding, Reach, Unit};
use super::stage::{Ground, Stage};
use super::starts::Started;
use super::{process, starts};

const HELD: usize = 1_000;

const MEMORY: f64 = 60.0;

/// One query looks for all who wait, four times a second; a little is for what is not theirs.
const QUERIES: f64 = 5.0;

/// How long transactions are counted: a wait is thirty seconds.
const COUNTED: u32 = 15;

/// PostgreSQL tells of transactions a second late, and where a connection rests, ten.
const TO_BE_COUNTED: Duration = Duration::from_secs(11);

pub async fn measure(ground: &Ground) -> Result<Vec<Finding>> {
    // Nothing but the requests is to change within the time.
    let stage = Stage::set(ground, "waits", &[("GREENROOM_RECONCILE_SECONDS", "3600")]).await?;
    let template = json!({
        "name": "Waited for", "agent_name": "nobody-here", "room_creation": "on_join",
        "join_window_seconds": 3_600,
    });
    let template = stage.api.template(&template).await?;
    let sessions = starts::many(&stage.api, &template, HELD).await?;
    let pid = stage.service.pid()?;
    pass(TO_BE_COUNTED).await?;
    let (idle_queries, idle_memory) = used(&stage, pid).await?;
    let mut held = hold(&stage, sessions);
    // Each asks once for itself, at first.
    pass(Duration::from_secs(4)).await?;
    let (queries, memory) = used(&stage, pid).await?;
    ensure!(held.try_join_next().is_none(), "a request was not held");
    all_are_answered(held).await?;
    Ok(vec![
        Finding {
            measured: memory,
            reach: Reach::AtMost(MEMORY),
            unit: Unit::Megabytes,
            says: format!("resident with {HELD} held, {idle_memory:.1} MB with none"),
        },
        Finding {
            measured: queries - idle_queries,
            reach: Reach::AtMost(QUERIES),
            unit: Unit::PerSecond,
            says: format!("transactions more: {queries:.1} /s with, {idle_queries:.1} /s without"),
        },
    ])
}

/// Transactions a second, and the most memory there was, over the next seconds.
async fn used(stage: &Stage, pid: u32) -> Result<(f64, f64)> {
    let before = transactions(stage).await?;
    let mut memory = 0.0_f64;
    for _ in 0..COUNTED {
        pass(Duration::from_secs(1)).await?;
        memory = memory.max(process::resident(pid)?);
    }
    let done = u32::try_from(transactions(stage).await? - before)?;
    Ok((f64::from(done) / f64::from(COUNTED), memory))
}

async fn transactions(stage: &Stage) -> Result<i64> {
    stage
        .number("select xact_commit + xact_rollback from pg_stat_database where datname = current_database()")
        .await
}

fn hold(stage: &Stage, sessions: Vec<Started>) -> JoinSet<Result<Value>> {
    let mut held = JoinSet::new();
    for session in sessions {
        let api = stage.api.clone();
        held.spawn(async move { api.agent_ready(&session.id).await });
    }
    held
}

async fn all_are_answered(held: JoinSet<Result<Value>>) -> Result<()> {
    let answers = held.join_all().await;
    let answered = answers.len();
    ensure!(answered == HELD, "{answered} of {HELD} requests were answered");
    for answer in answers {
        let answer = answer.context("a held request was not answered")?;
        ensure!(answer["agent_status"] == "waiting", "it was answered {answer}");
    }
    Ok(())
}
