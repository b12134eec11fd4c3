//! How many of LiveKit's webhooks are taken in a second, each committed before its answer.

use anyhow::{Result, ensure};
use greenroom_testkit::caller;
use serde_json::json;

use super::figure::{Finding, Reach, Unit};
use super::stage::{Ground, Stage};
use super::starts::Started;
use super::told::{CONNECTIONS, SID};
use super::wire::Connection;
use super::{starts, told};

/// Sessions whose rooms are open, so that the keeper has its usual work beside.
const SESSIONS: usize = 5_000;

/// How often the user of each comes and leaves.
const STAYS: usize = 3;

const REACH: f64 = 2_000.0;

pub async fn measure(ground: &Ground) -> Result<Vec<Finding>> {
    let stage = Stage::set(ground, "webhooks", &[]).await?;
    let template = json!({ "name": "Told of", "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600 });
    let template = stage.api.template(&template).await?;
    let sessions = starts::many(&stage.api, &template, SESSIONS).await?;
    forged_is_refused(&stage, &sessions[0]).await?;
    let requests = comings_and_goings(&stage, &sessions);
    let count = requests.len();
    let sent = told::send(stage.service.address(), requests).await?;
    let written = format!("select count(*) from session_events where source_id like '%/{SID}%'");
    let written = stage.number(&written).await?;
    ensure!(usize::try_from(written)? == count, "{written} of {count} are in the timelines");
    let (half, most) =
        (sent.times[count / 2].as_millis(), sent.times[count * 99 / 100].as_millis());
    Ok(vec![Finding {
        measured: as_float(count) / sent.took.as_secs_f64(),
        reach: Reach::AtLeast(REACH),
        unit: Unit::PerSecond,
        says: format!(
            "{count} on {CONNECTIONS} connections: half within {half} ms, 99 % within {most} ms"
        ),
    }])
}

/// Round by round over all sessions, as it comes of many rooms at a time.
fn comings_and_goings(stage: &Stage, sessions: &[Started]) -> Vec<Vec<u8>> {
    let rounds = STAYS * 2;
    // The last has just happened.
    let first = caller::in_seconds(-i64::try_from(rounds).unwrap_or_default());
    let of_round = |round: usize| {
        let kind = ["participant_joined", "participant_left"][round % 2];
        let at = first + u64::try_from(round).unwrap_or_default();
        sessions.iter().enumerate().map(move |(session, Started { room, .. })| {
            let stay = session * STAYS + round / 2;
            told::event(kind, room, stay, session * rounds + round, at)
        })
    };
    let events = (0..rounds).flat_map(of_round);
    events.map(|event| told::request(&stage.livekit, &event)).collect()
}

/// The control: what is taken without a look at its signature would be taken faster.
async fn forged_is_refused(stage: &Stage, session: &Started) -> Result<()> {
    let event = told::event("participant_joined", &session.room, 0, 0, caller::in_seconds(0));
    let signature = stage.livekit.signature_of("{}");
    let request = told::with_signature(&signature, &event.to_string());
    let status = Connection::open(stage.service.address()).await?.ask(&request).await?;
    ensure!(status == 401, "a forged webhook was answered {status}");
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "there are far less than 2^52")]
fn as_float(count: usize) -> f64 {
    count as f64
}
