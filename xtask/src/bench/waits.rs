//! Memory and database load of 1,000 requests that are held until their agents are ready.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use greenroom_testkit::sleep_for;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::starts::StartedSession;
use super::{process, starts};

/// Number of held requests.
const HELD: usize = 1_000;

const MAX_MEGABYTES: f64 = 60.0;

/// One query polls the sessions of all held requests four times per second. The fifth transaction
/// is a tolerance for other work.
const MAX_TRANSACTIONS_PER_SECOND: f64 = 5.0;

/// Time in which transactions are counted. A request is held for 30 s.
const COUNT_SECONDS: u32 = 15;

/// PostgreSQL reports the transactions of a busy connection up to 1 s late, and those of an idle
/// connection up to 10 s late.
const STATISTICS_DELAY: Duration = Duration::from_secs(11);

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    // The keeper checks these sessions only after the measurement.
    let settings = [("GREENROOM_RECONCILE_SECONDS", "3600")];
    let deployment = Deployment::start(env, "waits", &settings).await?;
    let template = json!({
        "name": "Waited for", "agent_name": "unserved-agent", "room_creation": "on_join",
        "join_window_seconds": 3_600,
    });
    let template = deployment.api.create_template(&template).await?;
    let sessions = starts::start_sessions(&deployment.api, &template, HELD).await?;
    let pid = deployment.service.pid()?;
    sleep_for(STATISTICS_DELAY).await?;
    let (idle_rate, idle_memory) = measure_usage(&deployment, pid).await?;
    let mut held = hold(&deployment, sessions);
    // Each request reads its own session once before it is held.
    sleep_for(Duration::from_secs(4)).await?;
    let (rate, memory) = measure_usage(&deployment, pid).await?;
    ensure!(held.try_join_next().is_none(), "a request returned before the measurement ended");
    check_responses(held).await?;
    Ok(vec![
        Measurement {
            measured: memory,
            threshold: Threshold::AtMost(MAX_MEGABYTES),
            unit: Unit::Megabytes,
            description: format!("resident with {HELD} held requests, {idle_memory:.1} MB without"),
        },
        Measurement {
            measured: rate - idle_rate,
            threshold: Threshold::AtMost(MAX_TRANSACTIONS_PER_SECOND),
            unit: Unit::PerSecond,
            description: format!(
                "additional transactions: {rate:.1} /s with held requests, {idle_rate:.1} without"
            ),
        },
    ])
}

/// Returns transactions per second and the maximum memory in megabytes, over [`COUNT_SECONDS`].
async fn measure_usage(deployment: &Deployment, pid: u32) -> Result<(f64, f64)> {
    let before = transactions(deployment).await?;
    let mut memory = 0.0_f64;
    for _ in 0..COUNT_SECONDS {
        sleep_for(Duration::from_secs(1)).await?;
        memory = memory.max(process::resident(pid)?);
    }
    let count = u32::try_from(transactions(deployment).await? - before)?;
    Ok((f64::from(count) / f64::from(COUNT_SECONDS), memory))
}

async fn transactions(deployment: &Deployment) -> Result<i64> {
    deployment
        .number(
            "select xact_commit + xact_rollback from pg_stat_database
             where datname = current_database()",
        )
        .await
}

fn hold(deployment: &Deployment, sessions: Vec<StartedSession>) -> JoinSet<Result<Value>> {
    let mut held = JoinSet::new();
    for session in sessions {
        let api = deployment.api.clone();
        held.spawn(async move { api.wait_for_agent(&session.id).await });
    }
    held
}

/// The control: all requests were held until their timeout, and no request failed.
async fn check_responses(held: JoinSet<Result<Value>>) -> Result<()> {
    let responses = held.join_all().await;
    let count = responses.len();
    ensure!(count == HELD, "{count} of {HELD} requests returned");
    for response in responses {
        let session = response.context("a held request failed")?;
        ensure!(session["agent_status"] == "waiting", "the agent is not awaited: {session}");
    }
    Ok(())
}
