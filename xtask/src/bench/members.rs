//! The multixact members that PostgreSQL writes per start. Each start locks its template's row for the
//! foreign key. If several transactions lock a row at the same time, PostgreSQL writes a multixact that
//! lists them all, its members. If the space for members is used up before vacuum frees it, PostgreSQL
//! refuses every statement that needs a new multixact.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::start_load::StartLoad;

const CONNECTIONS: usize = 100;

const DURATION: Duration = Duration::from_secs(10);

/// Delays each commit by 5,000 µs, as a slow disk does. Executed one by one, because PostgreSQL refuses
/// `alter system` within a transaction, and several statements in one message are one.
const SLOW_COMMITS: [&str; 3] = [
    "alter system set commit_delay = 5000",
    "alter system set commit_siblings = 0",
    "select pg_reload_conf()",
];

/// Reverts [`SLOW_COMMITS`].
const NORMAL_COMMITS: [&str; 3] = [
    "alter system reset commit_delay",
    "alter system reset commit_siblings",
    "select pg_reload_conf()",
];

/// Number of members that the server had written at the latest checkpoint.
const MEMBERS_AT_CHECKPOINT: &str =
    "select next_multi_offset::text::bigint from pg_control_checkpoint()";

const MAX_MEMBERS_PER_START: f64 = 3.0;

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    // The keeper observes these sessions only after the measurement.
    let settings = [("GREENROOM_RECONCILE_SECONDS", "3600")];
    let deployment = Deployment::start(env, "members", &settings).await?;
    let load = StartLoad::plain(&deployment).await?;
    for statement in SLOW_COMMITS {
        deployment.sql.batch_execute(statement).await?;
    }
    let result = count_members(&deployment, &load).await;
    for statement in NORMAL_COMMITS {
        deployment.sql.batch_execute(statement).await?;
    }
    let (members, rate) = result?;
    ensure!(members > 0.0, "no two transactions locked the template at the same time");
    let starts = rate * DURATION.as_secs_f64();
    Ok(vec![Measurement {
        measured: members / starts,
        threshold: Threshold::AtMost(MAX_MEMBERS_PER_START),
        unit: Unit::Count,
        description: format!(
            "multixact members per start; {CONNECTIONS} connections, {rate:.0} starts/s, commits of 5 ms"
        ),
    }])
}

/// Returns the number of members that PostgreSQL writes during the load, and the starts per second.
async fn count_members(deployment: &Deployment, load: &StartLoad) -> Result<(f64, f64)> {
    let members = async || {
        deployment.sql.batch_execute("checkpoint").await?;
        anyhow::Ok(f64::from(u32::try_from(deployment.number(MEMBERS_AT_CHECKPOINT).await?)?))
    };
    let before = members().await?;
    let rate = load.run_on(CONNECTIONS, DURATION).await?;
    Ok((members().await? - before, rate))
}
