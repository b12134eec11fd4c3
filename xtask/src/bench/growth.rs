//! Starts, reads and the idle keeper with many stored sessions, against a database with few.

mod fill;
mod idle;
mod side;

use anyhow::{Context, Result};
use greenroom_testkit::pg::Database;

use self::side::Side;
use super::deployment::BenchEnv;
use super::figure::{Measurement, Threshold, Unit};
use super::statistics::{Ratio, median};
use super::varied_load::VariedLoad;

/// Number of pairs that the ratio of each load is calculated from.
const ROUNDS: usize = 10;

/// The order of the databases in a round: the large one is 0. A drift of the machine affects both alike.
const ORDER: [usize; 4] = [0, 1, 1, 0];

/// Number of sessions in the small database. Both databases return the same kind of sessions.
const FEW_ROWS: u64 = 1_000;

/// Minimum rate with many stored sessions, divided by the rate with few.
const RATIO: f64 = 0.9;

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let large = Database::fresh_at(env.database_url.clone()).await?;
    let filled = fill::fill(large.url(), env.rows).await?;
    env.steps.line(&format!("      {filled}"));
    let small = Database::fresh_at(env.database_url.clone()).await?;
    fill::fill(small.url(), FEW_ROWS).await?;
    let (large, small) = tokio::try_join!(
        Side::start(env, "growth-large", large),
        Side::start(env, "growth-small", small)
    )?;
    let mut measurements = vec![idle::measure(&large.deployment, &small.deployment).await?];
    let loads = large.loads(env.rows).await?.into_iter().zip(small.loads(FEW_ROWS).await?);
    for ((name, many), (_, few)) in loads {
        large.deployment.sql.batch_execute("checkpoint").await?;
        measurements.push(compare(name, [&many, &few]).await?);
    }
    Ok(measurements)
}

async fn compare(name: &str, loads: [&VariedLoad; 2]) -> Result<Measurement> {
    // The first turn of each opens connections and reads pages from the disk.
    for load in loads {
        load.run().await?;
    }
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let mut rates = [0.0; 2];
        for side in ORDER {
            rates[side] += loads[side].run().await?.accepted_per_second / 2.0;
        }
        pairs.push(rates.into());
    }
    let Ratio { mean, lower, upper } = Ratio::of_pairs(&pairs).context("too few rounds")?;
    let (many, few): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let (many, few) = (median(&many), median(&few));
    Ok(Measurement {
        measured: mean,
        threshold: Threshold::AtLeast(RATIO),
        unit: Unit::Times,
        description: format!(
            "{name}: 95 % interval {lower:.3} to {upper:.3}; medians {many:.0} /s against {few:.0} /s"
        ),
    })
}
