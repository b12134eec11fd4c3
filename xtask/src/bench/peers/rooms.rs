//! Greenroom against the Go service in starts that open a room in a real LiveKit.

use anyhow::Result;
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::ports;
use serde_json::json;

use super::report::Report;
use super::sample::{Sample, Work};
use super::service::{Kind, Peer};
use super::target::Target;
use super::thresholds::{self, ROOM_CONNECTIONS};
use super::{Cell, GO, GREENROOM_SETTINGS, JOIN_WINDOW_SECONDS, scale};
use crate::bench::deployment::{BenchEnv, Deployment};
use crate::bench::figure::Measurement;

/// No worker serves this agent: LiveKit stores the dispatch and starts no job.
const AGENT: &str = "unserved-agent";

const CELL: Cell = Cell { work: Work::Room, connections: ROOM_CONNECTIONS };

/// Each turn has its own LiveKit, because LiveKit keeps some 300 KB per room.
pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let mut samples = Vec::new();
    for round in 0..scale(env).0 {
        if round % 2 == 0 {
            samples.push(greenroom(env).await?);
            samples.push(go(env).await?);
        } else {
            samples.push(go(env).await?);
            samples.push(greenroom(env).await?);
        }
    }
    let report = Report::new(samples);
    report.publish(env, "peers-rooms")?;
    Ok(thresholds::of_rooms(&report))
}

async fn greenroom(env: &BenchEnv) -> Result<Sample> {
    let deployment = Deployment::start(env, "rooms-greenroom", &GREENROOM_SETTINGS).await?;
    let template = json!({
        "name": "Rooms", "agent_name": AGENT, "join_window_seconds": JOIN_WINDOW_SECONDS,
    });
    let template = deployment.api.create_template(&template).await?;
    Target::greenroom(env, &deployment, &template).await?.sample(&CELL, scale(env).1).await
}

async fn go(env: &BenchEnv) -> Result<Sample> {
    let port = ports::free_tcp_port()?;
    let webhook_urls = vec![format!("http://127.0.0.1:{port}/webhooks/livekit")];
    let livekit = Server::start_with(Options { webhook_urls, ..Options::default() }).await?;
    let peer = Peer::start_on(env, Kind::Go, &livekit, port).await?;
    let template = peer.create_template("on_start", Some(AGENT)).await?;
    let target = Target::peer(env, GO, &peer, livekit.guard_id()?, &template).await?;
    target.sample(&CELL, scale(env).1).await
}
