//! Whether the keeper is in time with ten thousand sessions, and what of a core it takes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use greenroom_testkit::{caller, pass};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::figure::{Finding, Reach, Unit};
use super::stage::{Ground, Stage};
use super::starts::Started;
use super::{process, starts, told};
use crate::api::{Api, text};

const LIVE: usize = 10_000;

/// How many of them have a user, for all that is told: LiveKit is asked for more of those. They are
/// told of in one go, and so are all due in the same second from then on.
const ACTIVE: usize = LIVE / 2;

/// The shortest that a template can have.
const JOIN_WINDOW: Duration = Duration::from_secs(30);

/// As long as sessions of this window are started. Their deadlines pass in the same time later: that
/// is when the keeper is measured, and everything else has settled.
const MEASURED: Duration = Duration::from_mins(1);

const BETWEEN_STARTS: Duration = Duration::from_millis(200);

const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// How often a keeper looks at what rests, in seconds.
const RECONCILE: u32 = 30;

/// In which the last deadline is kept, or is too late.
const TO_BE_SEEN: Duration = Duration::from_secs(3);

/// How many deadlines have to pass: on a quiet machine it is three hundred.
const ENOUGH: usize = 200;

const OF_A_CORE: f64 = 15.0;
const LATE: f64 = 2.0;

/// What the service used, and how often it looked, while deadlines passed.
struct Used {
    percent: f64,
    looks: i64,
    /// How often LiveKit did not answer the service.
    silent: usize,
}

pub async fn measure(ground: &Ground) -> Result<Vec<Finding>> {
    let reconcile = RECONCILE.to_string();
    let settings = [("GREENROOM_RECONCILE_SECONDS", reconcile.as_str())];
    let stage = Stage::set(ground, "deadlines", &settings).await?;
    let long = json!({
        "name": "Long", "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600,
    });
    let short = json!({ "name": "Short", "join_window_seconds": JOIN_WINDOW.as_secs() });
    let (long, short) = (stage.api.template(&long).await?, stage.api.template(&short).await?);
    let live = starts::many(&stage.api, &long, LIVE).await?;
    users_come(&stage, &live[..ACTIVE]).await?;
    let (latest, used) =
        tokio::try_join!(deadlines(&stage.api, &short), use_while_they_pass(&stage, &long))?;
    all_live_on(&stage, &long).await?;
    let Used { percent, looks, silent } = used;
    let seconds = MEASURED.as_secs();
    let silent =
        if silent == 0 { String::new() } else { format!(", LiveKit silent {silent} times") };
    Ok(vec![
        Finding {
            measured: percent,
            reach: Reach::AtMost(OF_A_CORE),
            unit: Unit::PercentOfACore,
            says: format!("of a core: {LIVE} sessions, {looks} looks in {seconds} s{silent}"),
        },
        latest,
    ])
}

async fn users_come(stage: &Stage, sessions: &[Started]) -> Result<()> {
    let at = caller::in_seconds(0);
    let joined = sessions.iter().enumerate().map(|(number, session)| {
        let event = told::event("participant_joined", &session.room, number, number, at);
        told::request(&stage.livekit, &event)
    });
    told::send(stage.service.address(), joined.collect()).await?;
    Ok(())
}

/// The control: sessions that are over cost nothing.
async fn all_live_on(stage: &Stage, template: &str) -> Result<()> {
    for (status, count) in [("active", ACTIVE), ("pending", LIVE - ACTIVE)] {
        let of_status = format!(
            "select count(*) from sessions
             where session_template_id = '{template}' and status = '{status}'"
        );
        let found = usize::try_from(stage.number(&of_status).await?)?;
        ensure!(found == count, "{found} sessions are {status}, and {count} should be");
    }
    Ok(())
}

/// What the service uses while deadlines pass.
async fn use_while_they_pass(stage: &Stage, template: &str) -> Result<Used> {
    // A claim and a look that is written are one each.
    let revisions = format!(
        "select (sum(revision) / 2)::bigint from sessions where session_template_id = '{template}'"
    );
    let pid = stage.service.pid()?;
    let silent = || stage.service.log_lines("LiveKit did not");
    pass(JOIN_WINDOW).await?;
    let silent_before = silent();
    let (begun, looked, used) =
        (Instant::now(), stage.number(&revisions).await?, process::processor_time(pid)?);
    pass(MEASURED).await?;
    let used = process::processor_time(pid)?.saturating_sub(used);
    let took = begun.elapsed();
    let looks = stage.number(&revisions).await? - looked;
    // The control: a keeper that looks less often than it is told to is cheap.
    let due = took.as_secs_f64() / f64::from(RECONCILE) * f64::from(u32::try_from(LIVE)?);
    let made = f64::from(i32::try_from(looks)?);
    ensure!(made >= 0.95 * due, "{looks} looks were made, and {due:.0} were due");
    let percent = used.as_secs_f64() / took.as_secs_f64() * 100.0;
    Ok(Used { percent, looks, silent: silent() - silent_before })
}

/// Starts sessions that nobody joins, and sees when each is expired: by what it says itself, and by
/// when the API no longer shows it as pending.
async fn deadlines(api: &Api, template: &str) -> Result<Finding> {
    let (due, seen) = start_and_watch(api, template).await?;
    let mut said = Vec::new();
    for id in due.keys() {
        said.push(lateness(&api.session(id).await?)?);
    }
    said.sort_by(f64::total_cmp);
    let (count, half) = (said.len(), said.get(said.len() / 2).copied().unwrap_or_default());
    ensure!(count >= ENOUGH, "only {count} sessions could be started whose deadline was to pass");
    Ok(Finding {
        measured: said.last().copied().unwrap_or_default().max(seen),
        reach: Reach::AtMost(LATE),
        unit: Unit::Seconds,
        says: format!(
            "late at most, of {count} deadlines that passed meanwhile; half within {half:.2} s"
        ),
    })
}

/// When each session is to expire, and how late one was still seen as pending, in seconds.
async fn start_and_watch(api: &Api, template: &str) -> Result<(HashMap<String, Instant>, f64)> {
    let (begun, mut due, mut seen) = (Instant::now(), HashMap::new(), 0.0_f64);
    let (mut starts, mut looks) = (interval(BETWEEN_STARTS), interval(BETWEEN_LOOKS));
    for ticks in [&mut starts, &mut looks] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    while begun.elapsed() < MEASURED + JOIN_WINDOW + TO_BE_SEEN {
        tokio::select! {
            _ = starts.tick(), if begun.elapsed() < MEASURED => {
                let session = starts::one(api, template).await?;
                due.insert(session.id, session.begun + JOIN_WINDOW);
            }
            _ = looks.tick() => seen = seen.max(overdue(&api.pending(template).await?, &due)?),
        }
    }
    Ok((due, seen))
}

/// How late the latest of these is that are still pending, in seconds.
fn overdue(pending: &Value, due: &HashMap<String, Instant>) -> Result<f64> {
    let now = Instant::now();
    let mut latest = 0.0_f64;
    for session in pending.as_array().context("the list is none")? {
        if let Some(by) = due.get(&text(session, "id")?) {
            latest = latest.max(now.saturating_duration_since(*by).as_secs_f64());
        }
    }
    Ok(latest)
}

/// By how much it ended after its deadline, in seconds.
fn lateness(session: &Value) -> Result<f64> {
    ensure!(session["status"] == "expired", "it should have expired: {session}");
    let at = |field| -> Result<_> { Ok(DateTime::parse_from_rfc3339(&text(session, field)?)?) };
    let late = (at("ended_at")? - at("join_by")?).as_seconds_f64();
    ensure!(late >= 0.0, "it expired before its time: {session}");
    Ok(late)
}
