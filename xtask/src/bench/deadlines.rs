//! The keeper with 10,000 sessions: how late it enforces deadlines, and its CPU time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use greenroom_testkit::{caller, sleep_for};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::starts::StartedSession;
use super::{process, starts, webhook_load};
use crate::api::{Api, text};

/// Number of sessions that stay open during the measurement.
const SESSIONS: usize = 10_000;

/// Number of sessions with a user, according to webhooks. The keeper makes more calls to LiveKit
/// for an active session. The webhooks arrive in one burst, so all active sessions are checked in
/// the same second from then on.
const ACTIVE_SESSIONS: usize = SESSIONS / 2;

/// The shortest join window that a template can have.
const JOIN_WINDOW: Duration = Duration::from_secs(30);

/// Time in which sessions with [`JOIN_WINDOW`] are started. The CPU time is measured for the same
/// time, one join window later: then the deadlines pass, and the load of the setup is over.
const MEASUREMENT: Duration = Duration::from_mins(1);

const START_INTERVAL: Duration = Duration::from_millis(200);

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// `GREENROOM_RECONCILE_SECONDS`: how often a keeper checks an idle session.
const RECONCILE_SECONDS: u32 = 30;

/// Time after the last deadline in which polling continues, so that a late expiry is seen.
const LAST_POLLS: Duration = Duration::from_secs(3);

/// Minimum number of deadlines. An idle machine reaches 300.
const MIN_DEADLINES: usize = 200;

const MAX_CPU_PERCENT: f64 = 15.0;

const MAX_SECONDS_LATE: f64 = 2.0;

/// Log messages of the keeper about calls to LiveKit that failed.
const FAILURE_MESSAGES: [&str; 4] = [
    "failed to list rooms",
    "failed to observe room",
    "failed to execute action",
    "failed to finish actions in time",
];

/// The work of the service while deadlines pass.
struct Usage {
    cpu_percent: f64,
    /// Number of sessions that were checked, each check counted.
    checks: i64,
    /// Number of [`FAILURE_MESSAGES`] in the log.
    failures: usize,
}

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let reconcile = RECONCILE_SECONDS.to_string();
    let settings = [("GREENROOM_RECONCILE_SECONDS", reconcile.as_str())];
    let deployment = Deployment::start(env, "deadlines", &settings).await?;
    let api = &deployment.api;
    let long = json!({
        "name": "Long", "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600,
    });
    let long = api.create_template(&long).await?;
    let short = json!({ "name": "Short", "join_window_seconds": JOIN_WINDOW.as_secs() });
    let short = api.create_template(&short).await?;
    let sessions = starts::start_sessions(api, &long, SESSIONS).await?;
    send_users_joined(&deployment, &sessions[..ACTIVE_SESSIONS]).await?;
    let (lateness, usage) =
        tokio::try_join!(measure_lateness(api, &short), measure_usage(&deployment))?;
    check_sessions_alive(&deployment, &long).await?;
    let Usage { cpu_percent, checks, failures } = usage;
    let seconds = MEASUREMENT.as_secs();
    let failures = if failures == 0 {
        String::new()
    } else {
        format!(", {failures} failed observations or actions")
    };
    Ok(vec![
        Measurement {
            measured: cpu_percent,
            threshold: Threshold::AtMost(MAX_CPU_PERCENT),
            unit: Unit::Percent,
            description: format!(
                "of a core: {SESSIONS} sessions, {checks} checks in {seconds} s{failures}"
            ),
        },
        lateness,
    ])
}

async fn send_users_joined(deployment: &Deployment, sessions: &[StartedSession]) -> Result<()> {
    let at = caller::seconds_from_now(0);
    let requests = sessions.iter().enumerate().map(|(number, session)| {
        let event = webhook_load::event("participant_joined", &session.room, number, number, at);
        webhook_load::request(&deployment.livekit, &event)
    });
    webhook_load::send(deployment.service.address(), requests.collect()).await?;
    Ok(())
}

/// The control: all sessions are still alive. Ended sessions would cost nothing.
async fn check_sessions_alive(deployment: &Deployment, template: &str) -> Result<()> {
    for (status, count) in [("active", ACTIVE_SESSIONS), ("pending", SESSIONS - ACTIVE_SESSIONS)] {
        let with_status = format!(
            "select count(*) from sessions
             where session_template_id = '{template}' and status = '{status}'"
        );
        let found = usize::try_from(deployment.number(&with_status).await?)?;
        ensure!(found == count, "{found} sessions are {status} instead of {count}");
    }
    Ok(())
}

async fn measure_usage(deployment: &Deployment) -> Result<Usage> {
    // A check writes nothing, but finds its session by the primary key.
    let checks = "select idx_scan from pg_stat_user_indexes where indexrelname = 'sessions_pkey'";
    let pid = deployment.service.pid()?;
    let count_failures = || deployment.service.count_log_lines(&FAILURE_MESSAGES);
    sleep_for(JOIN_WINDOW).await?;
    let failures_before = count_failures();
    let (begun, checks_before, cpu_before) =
        (Instant::now(), deployment.number(checks).await?, process::processor_time(pid)?);
    sleep_for(MEASUREMENT).await?;
    let cpu_time = process::processor_time(pid)?.saturating_sub(cpu_before);
    let took = begun.elapsed();
    let checks = deployment.number(checks).await? - checks_before;
    // The control: a keeper that checks less often than configured would be cheaper. While webhooks
    // arrive, the interval is five thirds as long.
    let interval = f64::from(RECONCILE_SECONDS) * 5.0 / 3.0;
    let due = took.as_secs_f64() / interval * f64::from(u32::try_from(SESSIONS)?);
    ensure!(
        f64::from(i32::try_from(checks)?) >= 0.9 * due,
        "the keeper made {checks} checks, but {due:.0} were due"
    );
    let cpu_percent = cpu_time.as_secs_f64() / took.as_secs_f64() * 100.0;
    Ok(Usage { cpu_percent, checks, failures: count_failures() - failures_before })
}

/// Starts sessions that no user joins, and measures how late each expires: by its own timestamps,
/// and by when the API no longer lists it as pending.
async fn measure_lateness(api: &Api, template: &str) -> Result<Measurement> {
    let (deadlines, latest_seen) = start_and_poll(api, template).await?;
    let mut lateness = Vec::new();
    for id in deadlines.keys() {
        lateness.push(recorded_lateness(&api.session(id).await?)?);
    }
    lateness.sort_by(f64::total_cmp);
    let count = lateness.len();
    let median = lateness.get(count / 2).copied().unwrap_or_default();
    ensure!(
        count >= MIN_DEADLINES,
        "only {count} sessions could be started in time instead of at least {MIN_DEADLINES}"
    );
    Ok(Measurement {
        measured: lateness.last().copied().unwrap_or_default().max(latest_seen),
        threshold: Threshold::AtMost(MAX_SECONDS_LATE),
        unit: Unit::Seconds,
        description: format!("late at most, over {count} deadlines; median {median:.2} s"),
    })
}

/// Returns the deadline of each started session, and how late a session was still listed as
/// pending, in seconds.
async fn start_and_poll(api: &Api, template: &str) -> Result<(HashMap<String, Instant>, f64)> {
    let (begun, mut deadlines, mut latest) = (Instant::now(), HashMap::new(), 0.0_f64);
    let (mut starts, mut polls) = (interval(START_INTERVAL), interval(POLL_INTERVAL));
    for ticks in [&mut starts, &mut polls] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    while begun.elapsed() < MEASUREMENT + JOIN_WINDOW + LAST_POLLS {
        tokio::select! {
            _ = starts.tick(), if begun.elapsed() < MEASUREMENT => {
                let session = starts::start_session(api, template).await?;
                deadlines.insert(session.id, session.begun + JOIN_WINDOW);
            }
            _ = polls.tick() => {
                let pending = api.pending_sessions(template).await?;
                latest = latest.max(longest_overdue(&pending, &deadlines)?);
            }
        }
    }
    Ok((deadlines, latest))
}

/// Returns by how much the most overdue pending session is overdue, in seconds.
fn longest_overdue(pending: &Value, deadlines: &HashMap<String, Instant>) -> Result<f64> {
    let now = Instant::now();
    let mut longest = 0.0_f64;
    for session in pending.as_array().context("the list of sessions is not an array")? {
        if let Some(deadline) = deadlines.get(&text(session, "id")?) {
            longest = longest.max(now.saturating_duration_since(*deadline).as_secs_f64());
        }
    }
    Ok(longest)
}

/// Returns how long after its deadline the session ended, in seconds.
fn recorded_lateness(session: &Value) -> Result<f64> {
    ensure!(session["status"] == "expired", "the session has not expired: {session}");
    let time = |field| -> Result<_> { Ok(DateTime::parse_from_rfc3339(&text(session, field)?)?) };
    let late = (time("ended_at")? - time("join_by")?).as_seconds_f64();
    ensure!(late >= 0.0, "the session expired before its deadline: {session}");
    Ok(late)
}
