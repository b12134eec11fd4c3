//! 20,000 sessions while LiveKit has lost a node, hangs, or refuses every call: agents in healthy
//! rooms are seen as fast as before, deadlines are exact, and PostgreSQL is not loaded.

use std::time::Duration;
use std::time::Instant;

use anyhow::{Result, ensure};
use greenroom_testkit::livekit::{ScriptedApi, Trouble};
use greenroom_testkit::sleep_for;
use serde_json::json;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::starts;
use crate::api::Api;

/// Number of sessions in progress.
const SESSIONS: usize = 20_000;

/// Number of rooms on the dead node.
const DEAD_ROOMS: usize = 2_000;

/// Number of sessions whose maximum duration is over during each measurement.
const DEADLINES: usize = 60;

/// Number of sessions whose agent is on its way during a measurement.
const AGENTS: usize = 40;

/// Duration of each measurement: `GREENROOM_RECONCILE_SECONDS`, so that each session is due once.
const MEASURED: Duration = Duration::from_secs(30);

/// Time in which the deadlines and the starts of a measurement are spread.
const SPREAD: Duration = Duration::from_secs(20);

/// Time after the recovery in which a burst is looked for.
const AFTER_RECOVERY: Duration = Duration::from_secs(60);

/// Sessions in progress, with the user and the agent that the script has in each room.
const MAKE_ACTIVE: &str = "
    update sessions set status = 'active', started_at = now(), user_joined_at = now(),
      room_created_at = now(), end_by = now() + interval '1 hour', agent_status = 'ready',
      agent_identity = 'agent', agent_wanted_since = now(), last_dispatch_at = now(),
      next_check_at = now() + random() * interval '30 seconds'";

/// How late a session of the latest measurement ended, in milliseconds.
const MAX_LATENESS: &str = "
    select coalesce(max(extract(epoch from coalesce(ended_at, now()) - end_by)) * 1000, 0)::bigint
    from sessions where end_by between now() - interval '30 seconds' and now()";

/// The median time from the dispatch of an agent until it was seen, in milliseconds. An agent that
/// was not seen counts as one minute.
const MEDIAN_AGENT_TIME: &str = "
    select coalesce(percentile_cont(0.5) within group (order by
      coalesce(extract(epoch from joined.at - created_at), 60)) * 1000, 60000)::bigint
    from sessions left join session_events joined on joined.session_id = sessions.id
      and joined.event = 'agent_joined'
    where created_at > now() - interval '30 seconds'";

const REVISIONS: &str = "select sum(revision)::bigint from sessions";

/// The service in one situation.
struct Situation {
    /// Row writes per second.
    writes: f64,
    /// How late the latest deadline was, in seconds.
    late: f64,
    /// Median time until an agent is seen, in seconds.
    agents: f64,
}

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let livekit = ScriptedApi::start(starts::USER, "agent").await?;
    let settings = [("LIVEKIT_URL", livekit.url()), ("GREENROOM_RECONCILE_SECONDS", "30")];
    let deployment = Deployment::start(env, "troubles", &settings).await?;
    let templates = Templates::create(&deployment.api).await?;
    starts::start_sessions(&deployment.api, &templates.on_join, SESSIONS).await?;
    deployment.sql.batch_execute(MAKE_ACTIVE).await?;
    // Sessions that were changed together are checked at different times afterwards.
    sleep_for(MEASURED).await?;
    let calm = situation(&deployment, Some(&templates.with_agent)).await?;
    ensure!(calm.writes > 500.0, "only {:.0} row writes per second", calm.writes);
    let calm_lists = lists_per_second(&livekit, Instant::now() - MEASURED, MEASURED);

    livekit.set_dead_rooms(dead_rooms(&deployment).await?);
    let dead = situation(&deployment, Some(&templates.with_agent)).await?;
    livekit.set_dead_rooms([]);
    let mut measurements = vec![
        Measurement {
            measured: dead.agents / calm.agents,
            threshold: Threshold::AtMost(1.2),
            unit: Unit::Times,
            description: format!(
                "time until an agent is seen, {DEAD_ROOMS} of {SESSIONS} rooms on a dead node; median {:.1} s, undisturbed {:.1} s",
                dead.agents, calm.agents
            ),
        },
        late("on a dead node", &dead),
        writes("on a dead node", &dead, &calm),
    ];
    for (trouble, name) in [(Trouble::Hangs, "LiveKit hangs"), (Trouble::Refuses, "refuses")] {
        livekit.set(trouble);
        let measured = situation(&deployment, None).await?;
        livekit.set(Trouble::None);
        let recovered_at = Instant::now();
        sleep_for(AFTER_RECOVERY).await?;
        let most = (0..AFTER_RECOVERY.as_secs())
            .map(|second| recovered_at + Duration::from_secs(second))
            .map(|begin| lists_per_second(&livekit, begin, Duration::from_secs(1)))
            .fold(0.0, f64::max);
        measurements.extend([
            late(name, &measured),
            writes(name, &measured, &calm),
            Measurement {
                measured: most / calm_lists,
                threshold: Threshold::AtMost(2.5),
                unit: Unit::Times,
                description: format!(
                    "{name}: most checks in a second after recovery, in those of calm"
                ),
            },
        ]);
    }
    Ok(measurements)
}

struct Templates {
    on_join: String,
    with_agent: String,
}

impl Templates {
    async fn create(api: &Api) -> Result<Self> {
        let on_join = json!({ "name": "Troubles", "agent_name": "agent", "room_creation": "on_join",
            "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600 });
        let with_agent = json!({ "name": "Agents", "agent_name": "agent",
            "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600 });
        Ok(Self {
            on_join: api.create_template(&on_join).await?,
            with_agent: api.create_template(&with_agent).await?,
        })
    }
}

/// Measures one situation. `template` starts sessions with an agent, if LiveKit can open rooms.
async fn situation(deployment: &Deployment, template: Option<&str>) -> Result<Situation> {
    let deadlines = format!(
        "update sessions set end_by = due.at, next_check_at = least(next_check_at, due.at)
         from (select id, now() + random() * interval '{} seconds' as at from sessions
           where status = 'active' and end_by > now() + interval '1 minute' limit {DEADLINES}) due
         where sessions.id = due.id",
        SPREAD.as_secs()
    );
    deployment.sql.batch_execute(&deadlines).await?;
    let (begun, before) = (Instant::now(), deployment.number(REVISIONS).await?);
    let mut created = 0;
    if let Some(template) = template {
        for _ in 0..AGENTS {
            starts::start_session(&deployment.api, template).await?;
            created += 1;
            sleep_for(SPREAD / u32::try_from(AGENTS)?).await?;
        }
    }
    sleep_for(MEASURED.saturating_sub(begun.elapsed())).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let writes = deployment.number(REVISIONS).await? - before + created;
    let milliseconds =
        |value: i64| -> Result<f64> { Ok(f64::from(i32::try_from(value)?) / 1_000.0) };
    Ok(Situation {
        writes: f64::from(i32::try_from(writes)?) / seconds,
        late: milliseconds(deployment.number(MAX_LATENESS).await?)?,
        agents: milliseconds(deployment.number(MEDIAN_AGENT_TIME).await?)?,
    })
}

async fn dead_rooms(deployment: &Deployment) -> Result<Vec<String>> {
    let select = format!(
        "select room_name from sessions where status = 'active' order by id limit {DEAD_ROOMS}"
    );
    let rows = deployment.sql.query(&select, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The number of rooms that the keeper listed, per second.
fn lists_per_second(livekit: &ScriptedApi, begin: Instant, duration: Duration) -> f64 {
    let lists = livekit.lists();
    let within = lists.iter().filter(|(at, _)| (begin..begin + duration).contains(at));
    let rooms: usize = within.map(|(_, rooms)| rooms).sum();
    u32::try_from(rooms).map_or(f64::INFINITY, f64::from) / duration.as_secs_f64()
}

fn late(situation: &str, measured: &Situation) -> Measurement {
    Measurement {
        measured: measured.late,
        threshold: Threshold::AtMost(2.0),
        unit: Unit::Seconds,
        description: format!("{situation}: lateness of {DEADLINES} maximum durations"),
    }
}

fn writes(situation: &str, measured: &Situation, calm: &Situation) -> Measurement {
    Measurement {
        measured: measured.writes / calm.writes,
        threshold: Threshold::AtMost(1.2),
        unit: Unit::Times,
        description: format!(
            "{situation}: row writes in those of calm; {:.0} /s, calm {:.0} /s",
            measured.writes, calm.writes
        ),
    }
}
