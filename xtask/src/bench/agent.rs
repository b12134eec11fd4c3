//! Time until the agent is in the room, after a start and after a direct call to LiveKit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::livekit::RoomInspector;
use greenroom_testkit::{caller, sleep_for};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::starts;

const AGENT: &str = "scripted-agent";

/// Number of measured pairs of a start and a direct call, plus one pair to warm up.
const PAIRS: usize = 41;

/// Number of processes that the worker keeps ready, so that no job waits for a process to start.
const IDLE_PROCESSES: usize = 3;

/// Pause in which the worker starts a new process in place of the one that the last job used.
const WORKER_RECOVERY: Duration = Duration::from_secs(1);

const POLL_INTERVAL: Duration = Duration::from_millis(4);

const AGENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum ratio of the time after a start to the time after a direct call.
const MAX_RATIO: f64 = 1.05;

const MAX_OVERHEAD_MILLISECONDS: f64 = 50.0;

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let deployment = Deployment::start(env, "agent", &[]).await?;
    let agent = ScriptedAgent::named(AGENT).idle_processes(IDLE_PROCESSES);
    let worker = agent.start(&deployment.livekit).await?;
    let template = json!({ "name": "Agent", "agent_name": AGENT });
    let template = deployment.api.create_template(&template).await?;
    let mut inspector = deployment.livekit.inspect_room("");
    let (mut starts, mut direct_calls) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // The order alternates, because the first one may warm caches or use up a ready process.
        for turn in [pair, pair + 1] {
            sleep_for(WORKER_RECOVERY).await?;
            if turn % 2 == 0 {
                starts.push(start(&deployment, &mut inspector, &template).await?);
            } else {
                direct_calls.push(call_livekit(&deployment, &mut inspector, env, pair).await?);
            }
        }
    }
    let jobs = worker.jobs()?.len();
    ensure!(jobs == 2 * PAIRS, "{jobs} jobs were started for {} agents", 2 * PAIRS);
    let (start, direct) = (median(&starts[1..]), median(&direct_calls[1..]));
    let description =
        format!("start {start:.0} ms, direct call {direct:.0} ms: medians of {}", PAIRS - 1);
    Ok(vec![
        Measurement {
            measured: start / direct,
            threshold: Threshold::AtMost(MAX_RATIO),
            unit: Unit::Times,
            description,
        },
        Measurement {
            measured: start - direct,
            threshold: Threshold::AtMost(MAX_OVERHEAD_MILLISECONDS),
            unit: Unit::Milliseconds,
            description: "longer than the direct call, from request to agent in the room"
                .to_owned(),
        },
    ])
}

async fn start(
    deployment: &Deployment,
    inspector: &mut RoomInspector,
    template: &str,
) -> Result<Duration> {
    let session = starts::start_session(&deployment.api, template).await?;
    let took = wait_for_agent(inspector, &session.room, session.begun).await?;
    deployment.api.end(&session.id).await?;
    Ok(took)
}

/// The control: the single call to LiveKit that does the same without Greenroom.
async fn call_livekit(
    deployment: &Deployment,
    inspector: &mut RoomInspector,
    env: &BenchEnv,
    number: usize,
) -> Result<Duration> {
    let livekit = &deployment.livekit;
    let room = format!("direct-{number}");
    let expiry = caller::seconds_from_now(60);
    let grant = json!({ "roomCreate": true });
    let claims = json!({ "iss": livekit.api_key(), "exp": expiry, "video": grant });
    let token = caller::token(livekit.api_secret(), &claims);
    let begun = Instant::now();
    let response = env
        .client
        .post(format!("{}/twirp/livekit.RoomService/CreateRoom", livekit.api_url()))
        .bearer_auth(token)
        .json(&json!({ "name": room, "agents": [{ "agent_name": AGENT, "metadata": "{}" }] }))
        .send()
        .await?;
    response.error_for_status()?;
    let took = wait_for_agent(inspector, &room, begun).await?;
    livekit.delete_room(&room).await?;
    Ok(took)
}

/// Polls the room until it has an active agent, and returns the time since `begun`.
async fn wait_for_agent(
    inspector: &mut RoomInspector,
    room: &str,
    begun: Instant,
) -> Result<Duration> {
    inspector.set_room(room);
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let poll = async {
        loop {
            ticks.tick().await;
            if !inspector.active_agents().await?.is_empty() {
                return anyhow::Ok(begun.elapsed());
            }
        }
    };
    timeout(AGENT_TIMEOUT, poll).await.context("no agent joined the room")?
}

/// Returns the median in milliseconds.
fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
}
