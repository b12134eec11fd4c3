//! The cost of a keeper that has nothing to do.

use std::time::Duration;

use anyhow::Result;
use greenroom_testkit::sleep_for;

use crate::bench::deployment::Deployment;
use crate::bench::figure::{Measurement, Threshold, Unit};
use crate::bench::process;

/// Time in which the service acquires its buckets and finishes its first searches.
const SETTLING: Duration = Duration::from_secs(5);

const DURATION: Duration = Duration::from_secs(20);

/// Maximum of the additional CPU time, in percent of one core.
const MAX_ADDITIONAL_PERCENT: f64 = 1.0;

/// The backends of a service.
const BACKENDS: &str = "
    select pid from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()";

/// Compares the CPU time of both services and their backends in the same period.
pub async fn measure(large: &Deployment, small: &Deployment) -> Result<Measurement> {
    sleep_for(SETTLING).await?;
    let before = (cpu_time(large).await?, cpu_time(small).await?);
    sleep_for(DURATION).await?;
    let after = (cpu_time(large).await?, cpu_time(small).await?);
    let percent = |before: Duration, after: Duration| {
        100.0 * after.saturating_sub(before).as_secs_f64() / DURATION.as_secs_f64()
    };
    let (many, few) = (percent(before.0, after.0), percent(before.1, after.1));
    Ok(Measurement {
        measured: many - few,
        threshold: Threshold::AtMost(MAX_ADDITIONAL_PERCENT),
        unit: Unit::Percent,
        description: format!(
            "more CPU time of the idle keeper and its backends: {many:.1} % of one core against {few:.1} %"
        ),
    })
}

async fn cpu_time(deployment: &Deployment) -> Result<Duration> {
    let mut total = process::processor_time(deployment.service.pid()?)?;
    for row in deployment.sql.query(BACKENDS, &[]).await? {
        total += process::processor_time(u32::try_from(row.try_get::<_, i32>(0)?)?)?;
    }
    Ok(total)
}
