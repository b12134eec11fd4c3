//! Whether the keeper is in time with ten thousand sessions, and what of a core it takes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use greenroom_testkit::{caller, pass};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    figure::{Finding, Reach, Unit},
    process,
    stage::{Ground, Stage},
    starts::{self, Started},
    told,
};
use crate::api::{Api, text};

const LIVE: usize = 10_000;

/// How many of them have a user, for all that is told: LiveKit is asked for more of those.
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

const OF_A_CORE: f64 = 15.0;
const LATE: f64 = 2.0;

/// What the keeper and the deadlines did while they were measured.
struct Used {
    percent: f64,
    looks: i64,
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
    let (looks, times) = (used.looks, MEASURED.as_secs());
    Ok(vec![
        Finding {
            measured: used.percent,
            reach: Reach::AtMost(OF_A_CORE),
            unit: Unit::PercentOfACore,
            says: format!(
                "of a core for {LIVE} sessions, {ACTIVE} of them active: {looks} looks in {times} s"
            ),
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
    pass(JOIN_WINDOW).await?;
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
    Ok(Used { percent: used.as_secs_f64() / took.as_secs_f64() * 100.0, looks })
}

/// Starts sessions that nobody joins, and sees when each is expired: by what it says itself, and by
/// when the API no longer shows it as pending.
async fn deadlines(api: &Api, template: &str) -> Result<Finding> {
    let (begun, mut due) = (Instant::now(), HashMap::new());
    let (mut starts, mut looks) = (interval(BETWEEN_STARTS), interval(BETWEEN_LOOKS));
    for ticks in [&mut starts, &mut looks] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut seen = 0.0_f64;
    let over = MEASURED + JOIN_WINDOW + Duration::from_secs(3);
    while begun.elapsed() < over {
        tokio::select! {
            _ = starts.tick(), if begun.elapsed() < MEASURED => {
                let session = starts::one(api, template).await?;
                due.insert(session.id, session.begun + JOIN_WINDOW);
            }
            _ = looks.tick() => seen = seen.max(overdue(&api.pending(template).await?, &due)?),
        }
    }
    let mut said = 0.0_f64;
    for id in due.keys() {
        said = said.max(lateness(&api.session(id).await?)?);
    }
    Ok(Finding {
        measured: said.max(seen),
        reach: Reach::AtMost(LATE),
        unit: Unit::Seconds,
        says: format!(
            "late at most, of {} deadlines: {said:.2} s as they say, {seen:.2} s as it was seen",
            due.len()
        ),
    })
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
