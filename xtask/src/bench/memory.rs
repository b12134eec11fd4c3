//! Memory of the process after 100,000 starts.

use anyhow::Result;
use serde_json::json;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::{process, starts};

const STARTS: usize = 100_000;

/// Starts that open a real room. LiveKit keeps some 300 KB per room, so these are few.
const ROOMS: usize = 480;

const MEGABYTES: f64 = 20.0;

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let deployment = Deployment::start(env, "memory", &[]).await?;
    let pid = deployment.service.pid()?;
    let idle = process::resident(pid)?;
    let on_start = json!({
        "name": "Rooms", "agent_name": "unserved-agent", "join_window_seconds": 30,
    });
    let on_join = json!({ "name": "Plain", "room_creation": "on_join" });
    for (template, count) in [(on_start, ROOMS), (on_join, STARTS)] {
        let template = deployment.api.create_template(&template).await?;
        starts::start_sessions(&deployment.api, &template, count).await?;
    }
    Ok(vec![Measurement {
        measured: process::resident(pid)?,
        threshold: Threshold::AtMost(MEGABYTES),
        unit: Unit::Megabytes,
        description: format!("resident after {STARTS} starts, {idle:.1} MB before"),
    }])
}
