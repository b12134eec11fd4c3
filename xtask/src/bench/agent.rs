//! How long it takes from a start to the agent in the room, and from a dispatch by hand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::Actor;
use greenroom_testkit::livekit::View;
use greenroom_testkit::{caller, pass};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::figure::{Finding, Reach, Unit};
use super::stage::{Ground, Stage};
use super::starts;

const AGENT: &str = "actor";

/// How often each way is gone, the first time of both for warmth alone.
const PAIRS: usize = 41;

/// Processes that the worker keeps ready, so that none begins cold.
const IDLE: usize = 3;

/// In which the worker makes up for the process that the last job took.
const TO_RECOVER: Duration = Duration::from_secs(1);

const BETWEEN_LOOKS: Duration = Duration::from_millis(4);

const PATIENCE: Duration = Duration::from_secs(20);

const RATIO: f64 = 1.05;
const OVER: f64 = 50.0;

pub async fn measure(ground: &Ground) -> Result<Vec<Finding>> {
    let stage = Stage::set(ground, "agent", &[]).await?;
    let worker = Actor::named(AGENT).idle_processes(IDLE).start(&stage.livekit).await?;
    let template = json!({ "name": "Actor", "agent_name": AGENT });
    let template = stage.api.template(&template).await?;
    let mut view = stage.livekit.view("");
    let (mut started, mut by_hand) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // Who goes second may find what the first has warmed, or used up.
        for way in [pair, pair + 1] {
            pass(TO_RECOVER).await?;
            if way % 2 == 0 {
                started.push(start(&stage, &mut view, &template).await?);
            } else {
                by_hand.push(dispatch(&stage, &mut view, ground, pair).await?);
            }
        }
    }
    let jobs = worker.jobs()?.len();
    ensure!(jobs == 2 * PAIRS, "{jobs} jobs were begun for {} agents", 2 * PAIRS);
    let (started, by_hand) = (median(&started[1..]), median(&by_hand[1..]));
    let says =
        format!("a start {started:.0} ms, by hand {by_hand:.0} ms: medians of {}", PAIRS - 1);
    Ok(vec![
        Finding {
            measured: started / by_hand,
            reach: Reach::AtMost(RATIO),
            unit: Unit::Times,
            says,
        },
        Finding {
            measured: started - by_hand,
            reach: Reach::AtMost(OVER),
            unit: Unit::Milliseconds,
            says: "from POST to the agent in the room, more than by hand".to_owned(),
        },
    ])
}

async fn start(stage: &Stage, view: &mut View, template: &str) -> Result<Duration> {
    let session = starts::one(&stage.api, template).await?;
    let took = seen(view, &session.room, session.begun).await?;
    stage.api.end(&session.id).await?;
    Ok(took)
}

/// The control: the one call that somebody makes who asks LiveKit alone.
async fn dispatch(
    stage: &Stage,
    view: &mut View,
    ground: &Ground,
    number: usize,
) -> Result<Duration> {
    let livekit = &stage.livekit;
    let room = format!("by-hand-{number}");
    let claims = json!({
        "iss": livekit.api_key(), "exp": caller::in_seconds(60), "video": { "roomCreate": true },
    });
    let token = caller::token(livekit.api_secret(), &claims);
    let begun = Instant::now();
    let opened = ground
        .client
        .post(format!("{}/twirp/livekit.RoomService/CreateRoom", livekit.api_url()))
        .bearer_auth(token)
        .json(&json!({ "name": room, "agents": [{ "agent_name": AGENT, "metadata": "{}" }] }))
        .send()
        .await?;
    opened.error_for_status()?;
    let took = seen(view, &room, begun).await?;
    livekit.delete_room(&room).await?;
    Ok(took)
}

/// Looks until an agent is in the room and active, and says how long ago it was begun.
async fn seen(view: &mut View, room: &str, begun: Instant) -> Result<Duration> {
    view.turn_to(room);
    let mut looks = interval(BETWEEN_LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let look = async {
        loop {
            looks.tick().await;
            if !view.agents().await?.is_empty() {
                return anyhow::Ok(begun.elapsed());
            }
        }
    };
    timeout(PATIENCE, look).await.context("no agent came")?
}

/// In milliseconds.
fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
}
