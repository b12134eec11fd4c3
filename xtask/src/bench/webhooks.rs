//! The rate at which webhooks are accepted, each committed before its response.

use anyhow::{Result, ensure};
use greenroom_testkit::caller;
use serde_json::json;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::raw_http::Connection;
use super::starts::StartedSession;
use super::webhook_load::{CONNECTIONS, SID_PREFIX};
use super::{starts, webhook_load};

/// Number of sessions with open rooms, so that the keeper works as usual during the measurement.
const SESSIONS: usize = 5_000;

/// Number of times that the user of each session joins and leaves.
const JOINS: usize = 3;

const MIN_WEBHOOKS_PER_SECOND: f64 = 2_000.0;

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let deployment = Deployment::start(env, "webhooks", &[]).await?;
    let template = json!({
        "name": "Webhooks", "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600,
    });
    let template = deployment.api.create_template(&template).await?;
    let sessions = starts::start_sessions(&deployment.api, &template, SESSIONS).await?;
    check_forgery_refused(&deployment, &sessions[0]).await?;
    let requests = prepare_requests(&deployment, &sessions);
    let count = requests.len();
    let sent = webhook_load::send(deployment.service.address(), requests).await?;
    let recorded =
        format!("select count(*) from session_events where source_id like '%/{SID_PREFIX}%'");
    let recorded = deployment.number(&recorded).await?;
    ensure!(usize::try_from(recorded)? == count, "the timelines have {recorded} of {count} events");
    let (median, p99) =
        (sent.times[count / 2].as_millis(), sent.times[count * 99 / 100].as_millis());
    Ok(vec![Measurement {
        measured: f64::from(u32::try_from(count)?) / sent.took.as_secs_f64(),
        threshold: Threshold::AtLeast(MIN_WEBHOOKS_PER_SECOND),
        unit: Unit::PerSecond,
        description: format!(
            "{count} on {CONNECTIONS} connections: median {median} ms, p99 {p99} ms"
        ),
    }])
}

/// Returns requests that alternate between all sessions, as with many concurrent rooms.
fn prepare_requests(deployment: &Deployment, sessions: &[StartedSession]) -> Vec<Vec<u8>> {
    let rounds = JOINS * 2;
    // The last event has the current time.
    let first_at = caller::seconds_from_now(-i64::try_from(rounds).unwrap_or_default());
    let of_round = |round: usize| {
        let kind = ["participant_joined", "participant_left"][round % 2];
        let at = first_at + u64::try_from(round).unwrap_or_default();
        sessions.iter().enumerate().map(move |(session, StartedSession { room, .. })| {
            let join = session * JOINS + round / 2;
            webhook_load::event(kind, room, join, session * rounds + round, at)
        })
    };
    let events = (0..rounds).flat_map(of_round);
    events.map(|event| webhook_load::request(&deployment.livekit, &event)).collect()
}

/// The control: a service that does not verify signatures would be faster.
async fn check_forgery_refused(deployment: &Deployment, session: &StartedSession) -> Result<()> {
    let event =
        webhook_load::event("participant_joined", &session.room, 0, 0, caller::seconds_from_now(0));
    let signature = deployment.livekit.sign_webhook("{}");
    let request = webhook_load::with_signature(&signature, &event.to_string());
    let status = Connection::open(deployment.service.address()).await?.send(&request).await?;
    ensure!(status == 401, "a forged webhook returned {status} instead of 401");
    Ok(())
}
