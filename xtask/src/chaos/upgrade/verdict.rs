//! The checks after the upgrade: every session and its end, every deadline, and every agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use greenroom_testkit::wait_until;

use super::fleet::Fleet;
use super::load::{End, Load};
use crate::chaos::watch::{MAX_OVERLAP, Watch};
use crate::steps::{Steps, seconds};

/// Time in which the last sessions expire and the rooms of all sessions are deleted.
const END_TIMEOUT: Duration = Duration::from_secs(75);

/// The beginning of a phase, and the maximum delay of a deadline in it.
pub struct PhaseStart {
    pub name: &'static str,
    pub at: SystemTime,
    pub max_delay: Duration,
    /// Whether all replicas have the new version.
    pub is_new: bool,
}

/// A session that ended at a deadline.
struct Deadline {
    due: SystemTime,
    delay: Duration,
}

/// Waits until all sessions have ended and all rooms are gone.
pub async fn wait_for_ends(fleet: &Fleet, load: &Load) -> Result<()> {
    let sql = fleet.connect().await?;
    let open = "select count(*) from sessions where status in ('pending', 'active')";
    wait_until("all sessions to end and all rooms to be gone", END_TIMEOUT, async || {
        let sessions: i64 = sql.query_one(open, &[]).await?.get(0);
        let rooms = load.livekit.rooms().await?.len();
        ensure!((sessions, rooms) == (0, 0), "{sessions} open sessions and {rooms} rooms remain");
        Ok(Some(()))
    })
    .await
}

/// Prints one row per subject. Returns whether all are as required.
pub async fn print(
    steps: &Steps,
    fleet: &Fleet,
    load: &Load,
    phases: &[PhaseStart],
) -> Result<bool> {
    let mut passed = print_deadlines(steps, fleet, phases).await?;
    passed &= print_sessions(steps, fleet, load).await?;
    passed &= print_agents(steps, fleet, load, phases).await?;
    let violations = load.violations();
    let (_, retries) = load.counts();
    let lost = load.balancer.lost_connections();
    let summary = format!(
        "{retries} retries returned the same session, {lost} connections lost to stopping replicas, \
         {} violations",
        violations.len()
    );
    row(steps, violations.is_empty(), "requests", &summary);
    for violation in &violations {
        steps.line(&format!("      {violation}"));
    }
    Ok(passed && violations.is_empty())
}

async fn print_deadlines(steps: &Steps, fleet: &Fleet, phases: &[PhaseStart]) -> Result<bool> {
    let deadlines = deadlines(fleet).await?;
    let mut passed = true;
    for (index, phase) in phases.iter().enumerate() {
        let end = phases.get(index + 1).map(|next| next.at);
        let in_phase = |deadline: &&Deadline| {
            deadline.due >= phase.at && end.is_none_or(|end| deadline.due < end)
        };
        let delays: Vec<_> = deadlines.iter().filter(in_phase).map(|found| found.delay).collect();
        let latest = delays.iter().max().copied().unwrap_or_default();
        let kept = latest <= phase.max_delay;
        passed &= kept;
        let summary = format!(
            "{:<12} {:>3} deadlines, the latest {} late, at most {}",
            phase.name,
            delays.len(),
            seconds(latest),
            seconds(phase.max_delay)
        );
        row(steps, kept, if index == 0 { "deadlines" } else { "" }, &summary);
    }
    Ok(passed)
}

async fn deadlines(fleet: &Fleet) -> Result<Vec<Deadline>> {
    // The event has the time of the transaction that ended the session.
    let select = "select deadline, extract(epoch from at - deadline)::double precision
                  from (select session_events.at,
                          case end_reason when 'join_window' then join_by else end_by end as deadline
                        from sessions join session_events on session_id = sessions.id
                        where end_reason in ('join_window', 'max_duration')
                          and event in ('ended', 'expired')) as ended";
    let rows = fleet.connect().await?.query(select, &[]).await?;
    let deadline = |row: tokio_postgres::Row| {
        let delay = Duration::from_secs_f64(row.get::<_, f64>(1).max(0.0));
        Deadline { due: row.get(0), delay }
    };
    Ok(rows.into_iter().map(deadline).collect())
}

/// Compares the sessions in the database with the acknowledged ones.
async fn print_sessions(steps: &Steps, fleet: &Fleet, load: &Load) -> Result<bool> {
    let select = "select id::text, status, coalesce(end_reason, '–') from sessions";
    let rows = fleet.connect().await?.query(select, &[]).await?;
    let ends: BTreeMap<String, (String, String)> =
        rows.into_iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let sessions = load.sessions.lock();
    let lost = sessions.keys().filter(|id| !ends.contains_key(*id)).count();
    let unknown: Vec<_> = ends.keys().filter(|id| !sessions.contains_key(*id)).collect();
    let as_expected = |id: &str, end: End| {
        ends.get(id).is_none_or(|(status, reason)| (&**status, &**reason) == end)
    };
    let wrong: Vec<_> = sessions.iter().filter(|(id, entry)| !as_expected(id, entry.end)).collect();
    let passed = lost == 0 && unknown.is_empty() && wrong.is_empty();
    let summary = format!(
        "{} acknowledged, {lost} lost, {} never acknowledged, {} ended otherwise than expected",
        sessions.len(),
        unknown.len(),
        wrong.len()
    );
    row(steps, passed, "sessions", &summary);
    for (id, entry) in wrong {
        steps.line(&format!("      {id}: {:?} instead of {:?}", ends[id], entry.end));
    }
    for id in unknown {
        steps.line(&format!("      {id}: {:?}, never acknowledged", ends[id]));
    }
    Ok(passed)
}

/// Checks that no session got a second agent, by the worker's jobs and by what LiveKit showed.
///
/// Two calls that delete a room at the same time can make LiveKit open it again, with a job for its
/// agent. Such a job is an error only if all replicas were new when the session ended.
async fn print_agents(
    steps: &Steps,
    fleet: &Fleet,
    load: &Load,
    phases: &[PhaseStart],
) -> Result<bool> {
    let select = "select room_name, ended_at from sessions where ended_at is not null";
    let rows = fleet.connect().await?.query(select, &[]).await?;
    let ends: BTreeMap<String, SystemTime> =
        rows.into_iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut rooms = BTreeSet::new();
    let (mut repeated, mut after_end, mut after_new_end) = (Vec::new(), 0, 0);
    for job in fleet.jobs()? {
        let started = UNIX_EPOCH + Duration::from_millis(job.started_ms);
        match ends.get(&job.room) {
            Some(end) if started > *end => {
                after_end += 1;
                after_new_end += usize::from(phase_at(phases, *end).is_some_and(|one| one.is_new));
            }
            _ if !rooms.insert(job.room.clone()) => repeated.push(job.room),
            _ => {}
        }
    }
    let watches = load.sessions.lock().values().filter_map(|one| one.watch.clone()).collect();
    let watches: Vec<Arc<Watch>> = watches;
    let overlap = watches.iter().map(|watch| watch.longest_overlap()).max().unwrap_or_default();
    let passed = repeated.is_empty() && after_new_end == 0 && overlap <= MAX_OVERLAP;
    let summary = format!(
        "{} sessions with an agent, {} dispatched again, {after_end} after the end (new: \
         {after_new_end}), two agents for at most {}",
        rooms.len(),
        repeated.len(),
        seconds(overlap)
    );
    row(steps, passed, "agents", &summary);
    for room in repeated {
        steps.line(&format!("      {room}: a second job"));
    }
    Ok(passed)
}

/// Returns the phase that had begun at this time.
fn phase_at(phases: &[PhaseStart], at: SystemTime) -> Option<&PhaseStart> {
    phases.iter().rev().find(|phase| phase.at <= at)
}

fn row(steps: &Steps, passed: bool, name: &str, summary: &str) {
    let mark = if passed { "✓" } else { "✗" };
    steps.line(&format!("  {mark} {name:<14} {summary}"));
}
