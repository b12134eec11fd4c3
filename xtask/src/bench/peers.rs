//! Compares Greenroom with a Go service, a Python service and plain inserts by pgbench.

mod load;
mod pgbench;
mod plot;
mod report;
mod rooms;
mod sample;
mod service;
mod target;
mod thresholds;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use self::pgbench::Pgbench;
use self::report::Report;
use self::sample::{Sample, Work};
use self::service::{Kind, Peer};
use self::target::Target;
use super::deployment::{BenchEnv, Deployment};
use super::figure::Measurement;

pub use self::rooms::measure as measure_rooms;

const GREENROOM: &str = "Greenroom";
const GO: &str = "Go";
const FASTAPI: &str = "FastAPI";
const PGBENCH: &str = "pgbench";
const PGBENCH_BATCH: &str = "pgbench × 64";

/// Longer than the measurement, because the keeper's checks of started sessions would use CPU while other
/// targets are measured.
const GREENROOM_SETTINGS: [(&str, &str); 1] = [("GREENROOM_RECONCILE_SECONDS", "3600")];

/// Seconds in which the users of the started sessions must join: longer than the measurement.
const JOIN_WINDOW_SECONDS: i32 = 3_600;

/// A kind of request on a number of connections.
#[derive(Debug, Clone, Copy)]
struct Cell {
    work: Work,
    connections: usize,
}

const CELLS: [Cell; 7] = [
    Cell { work: Work::Start, connections: 1 },
    Cell { work: Work::Start, connections: 16 },
    Cell { work: Work::Start, connections: 64 },
    Cell { work: Work::Start, connections: 128 },
    Cell { work: Work::Start, connections: 512 },
    Cell { work: Work::Get, connections: 64 },
    Cell { work: Work::List, connections: 16 },
];

/// Whether `--quick` measures a cell.
fn is_quick(cell: &Cell) -> bool {
    cell.work != Work::Start || [1, 64].contains(&cell.connections)
}

/// Number of rounds, and duration of each cell.
fn scale(env: &BenchEnv) -> (u32, Duration) {
    if env.is_quick { (1, Duration::from_secs(1)) } else { (env.rounds, Duration::from_secs(3)) }
}

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let deployment = Deployment::start(env, "peers-greenroom", &GREENROOM_SETTINGS).await?;
    let (go, fastapi) = (
        Peer::start(env, Kind::Go, &deployment.livekit).await?,
        Peer::start(env, Kind::FastApi, &deployment.livekit).await?,
    );
    let template = json!({
        "name": "Plain", "room_creation": "on_join", "join_window_seconds": JOIN_WINDOW_SECONDS,
    });
    let template = deployment.api.create_template(&template).await?;
    let livekit = deployment.livekit.guard_id()?;
    let mut targets = vec![
        Target::greenroom(env, &deployment, &template).await?,
        Target::peer(env, GO, &go, livekit, &go.create_template("on_join", None).await?).await?,
        Target::peer(
            env,
            FASTAPI,
            &fastapi,
            livekit,
            &fastapi.create_template("on_join", None).await?,
        )
        .await?,
        Target::pgbench(PGBENCH, Pgbench::start(env, 1).await?).await?,
        Target::pgbench(PGBENCH_BATCH, Pgbench::start(env, 64).await?).await?,
    ];
    let report = Report::new(measure_rounds(env, &mut targets).await?);
    report.publish(env, "peers")?;
    Ok(thresholds::of_plain_starts(&report))
}

/// The targets alternate in each cell, in another order in each round.
async fn measure_rounds(env: &BenchEnv, targets: &mut [Target]) -> Result<Vec<Sample>> {
    let (rounds, duration) = scale(env);
    let mut samples = Vec::new();
    for _ in 0..rounds {
        for cell in CELLS.iter().filter(|cell| !env.is_quick || is_quick(cell)) {
            for target in targets.iter().filter(|target| target.supports(cell)) {
                samples.push(target.sample(cell, duration).await?);
            }
        }
        targets.rotate_left(1);
    }
    Ok(samples)
}
