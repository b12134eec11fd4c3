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

/// The size of the measurement.
struct Scale {
    /// Number of sessions in progress.
    sessions: usize,
    /// Number of rooms on the dead node.
    dead_rooms: usize,
    /// Number of sessions whose maximum duration is over in each situation.
    deadlines: usize,
    /// Number of sessions whose agent is on its way in a situation.
    agents: u32,
    /// `GREENROOM_RECONCILE_SECONDS`.
    reconcile_seconds: u32,
    /// Duration of each situation. The keeper first looks for an agent six seconds after its
    /// dispatch.
    situation: Duration,
    /// Time in which the deadlines and the starts of a situation are spread.
    spread: Duration,
    /// Time after the recovery in which a burst is looked for.
    after_recovery: Duration,
    /// Maximum number of checks in one second after the recovery, in those of calm. The keeper then
    /// makes at most 1,024 checks per second.
    max_burst: f64,
    /// The faults of LiveKit as a whole.
    troubles: &'static [(Trouble, &'static str)],
}

const FULL: Scale = Scale {
    sessions: 20_000,
    dead_rooms: 2_000,
    deadlines: 60,
    agents: 40,
    reconcile_seconds: 30,
    situation: Duration::from_secs(30),
    spread: Duration::from_secs(20),
    after_recovery: Duration::from_mins(1),
    max_burst: 2.5,
    troubles: &[(Trouble::Hangs, "LiveKit hangs"), (Trouble::Refuses, "LiveKit refuses")],
};

/// For the debug build, beside other checks.
const QUICK: Scale = Scale {
    sessions: 2_000,
    dead_rooms: 200,
    deadlines: 20,
    agents: 10,
    reconcile_seconds: 5,
    situation: Duration::from_secs(12),
    spread: Duration::from_secs(4),
    after_recovery: Duration::from_secs(10),
    max_burst: 4.0,
    troubles: &[(Trouble::Hangs, "LiveKit hangs")],
};

/// Sessions in progress, with the user and the agent that the script has in each room.
const MAKE_ACTIVE: &str = "
    update sessions set status = 'active', started_at = now(), user_joined_at = now(),
      room_created_at = now(), end_by = now() + interval '1 hour', agent_status = 'ready',
      agent_identity = 'agent', agent_wanted_since = now(), last_dispatch_at = now(),
      next_check_at = now() + random() * interval '1 second' * $1::integer";

/// How late a session of the latest situation ended, in milliseconds.
const MAX_LATENESS: &str = "
    select coalesce(max(extract(epoch from coalesce(ended_at, now()) - end_by)) * 1000, 0)::bigint
    from sessions where end_by between now() - interval '1 second' * $1::integer and now()";

/// The median time from a start until its agent was seen, in milliseconds, in the latest situation.
/// An agent that was not seen counts as one minute.
const MEDIAN_AGENT_TIME: &str = "
    select coalesce(percentile_cont(0.5) within group (order by
      coalesce(extract(epoch from joined.at - created_at), 60)) * 1000, 60000)::bigint
    from sessions left join session_events joined on joined.session_id = sessions.id
      and joined.event = 'agent_joined'
    where created_at > now() - interval '1 second' * $1::integer";

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
    let bench = Bench::start(env, if env.is_quick { &QUICK } else { &FULL }).await?;
    let scale = bench.scale;
    // Sessions that were changed together are checked at different times afterwards.
    sleep_for(scale.situation).await?;
    let calm_since = Instant::now();
    let calm = bench.situation(true).await?;
    ensure!(calm.writes > 100.0, "only {:.0} row writes per second", calm.writes);
    let calm_checks = bench.checks_per_second(calm_since, scale.situation);

    let mut measurements = dead_node(&bench, &calm).await?;
    for (trouble, name) in scale.troubles {
        bench.livekit.set_trouble(*trouble);
        let situation = bench.situation(false).await?;
        bench.livekit.set_trouble(Trouble::None);
        let most = bench.most_checks_after_recovery().await?;
        measurements.push(late(name, &situation));
        measurements.push(writes(name, &situation, &calm));
        measurements.push(Measurement {
            measured: most / calm_checks,
            threshold: Threshold::AtMost(scale.max_burst),
            unit: Unit::Times,
            description: format!(
                "{name}: most checks in one second after recovery, divided by the rate in calm"
            ),
        });
    }
    Ok(measurements)
}

/// Measures the situation in which a node with some of the rooms is dead.
async fn dead_node(bench: &Bench, calm: &Situation) -> Result<Vec<Measurement>> {
    bench.livekit.set_dead_rooms(bench.some_rooms().await?);
    let dead = bench.situation(true).await?;
    bench.livekit.set_dead_rooms([]);
    let Scale { dead_rooms, sessions, .. } = bench.scale;
    let agents = Measurement {
        measured: dead.agents / calm.agents,
        threshold: Threshold::AtMost(1.2),
        unit: Unit::Times,
        description: format!(
            "dead node with {dead_rooms} of {sessions} rooms: an agent elsewhere is seen after \
             {:.1} s, in calm after {:.1} s",
            dead.agents, calm.agents
        ),
    };
    Ok(vec![agents, late("dead node", &dead), writes("dead node", &dead, calm)])
}

struct Bench {
    scale: &'static Scale,
    livekit: ScriptedApi,
    deployment: Deployment,
    /// The template of the sessions whose agent is on its way.
    with_agent: String,
}

impl Bench {
    /// Starts the sessions in progress.
    async fn start(env: &BenchEnv, scale: &'static Scale) -> Result<Self> {
        let livekit = ScriptedApi::start(starts::USER, "agent").await?;
        let reconcile = scale.reconcile_seconds.to_string();
        let settings =
            [("LIVEKIT_URL", livekit.url()), ("GREENROOM_RECONCILE_SECONDS", &reconcile)];
        let deployment = Deployment::start(env, "troubles", &settings).await?;
        let template = |name, room_creation| {
            json!({ "name": name, "agent_name": "agent", "room_creation": room_creation,
                "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600 })
        };
        let in_progress = deployment.api.create_template(&template("Calls", "on_join")).await?;
        let with_agent = deployment.api.create_template(&template("Agents", "on_start")).await?;
        starts::start_sessions(&deployment.api, &in_progress, scale.sessions).await?;
        let seconds = i32::try_from(scale.reconcile_seconds)?;
        deployment.sql.execute(MAKE_ACTIVE, &[&seconds]).await?;
        Ok(Self { scale, livekit, deployment, with_agent })
    }

    /// Measures one situation, with starts if LiveKit can open rooms.
    async fn situation(&self, has_starts: bool) -> Result<Situation> {
        let Scale { deadlines, agents, situation, spread, .. } = *self.scale;
        self.set_deadlines(deadlines, spread).await?;
        let (begun, before) = (Instant::now(), self.deployment.number(REVISIONS).await?);
        for _ in 0..if has_starts { agents } else { 0 } {
            starts::start_session(&self.deployment.api, &self.with_agent).await?;
            sleep_for(spread / agents).await?;
        }
        sleep_for(situation.saturating_sub(begun.elapsed())).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let writes = self.deployment.number(REVISIONS).await? - before;
        Ok(Situation {
            writes: f64::from(i32::try_from(writes)?) / seconds,
            late: self.seconds(MAX_LATENESS).await?,
            agents: self.seconds(MEDIAN_AGENT_TIME).await?,
        })
    }

    async fn set_deadlines(&self, count: usize, spread: Duration) -> Result<()> {
        let update = format!(
            "update sessions set revision = revision + 1, end_by = due.at, next_check_at = least(next_check_at, due.at)
             from (select id, now() + random() * interval '{} seconds' as at from sessions
               where status = 'active' and end_by > now() + interval '1 minute' limit {count}) due
             where sessions.id = due.id",
            spread.as_secs()
        );
        Ok(self.deployment.sql.batch_execute(&update).await?)
    }

    /// The seconds that a query about the latest situation selects in milliseconds.
    async fn seconds(&self, query: &str) -> Result<f64> {
        let situation = i32::try_from(self.scale.situation.as_secs())?;
        let milliseconds: i64 =
            self.deployment.sql.query_one(query, &[&situation]).await?.try_get(0)?;
        Ok(f64::from(i32::try_from(milliseconds)?) / 1_000.0)
    }

    async fn some_rooms(&self) -> Result<Vec<String>> {
        let select = format!(
            "select room_name from sessions where status = 'active' order by id limit {}",
            self.scale.dead_rooms
        );
        let rows = self.deployment.sql.query(&select, &[]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn most_checks_after_recovery(&self) -> Result<f64> {
        let recovered_at = Instant::now();
        sleep_for(self.scale.after_recovery).await?;
        let seconds = 0..self.scale.after_recovery.as_secs();
        let begins = seconds.map(|second| recovered_at + Duration::from_secs(second));
        let rates = begins.map(|begin| self.checks_per_second(begin, Duration::from_secs(1)));
        Ok(rates.fold(0.0, f64::max))
    }

    /// The number of rooms that the keeper listed, per second.
    fn checks_per_second(&self, begin: Instant, duration: Duration) -> f64 {
        let lists = self.livekit.lists();
        let within = lists.iter().filter(|(at, _)| (begin..begin + duration).contains(at));
        let rooms: usize = within.map(|(_, rooms)| rooms).sum();
        u32::try_from(rooms).map_or(f64::INFINITY, f64::from) / duration.as_secs_f64()
    }
}

fn late(name: &str, situation: &Situation) -> Measurement {
    Measurement {
        measured: situation.late,
        threshold: Threshold::AtMost(2.0),
        unit: Unit::Seconds,
        description: format!("{name}: longest delay of a maximum duration"),
    }
}

fn writes(name: &str, situation: &Situation, calm: &Situation) -> Measurement {
    let (measured, in_calm) = (situation.writes, calm.writes);
    Measurement {
        measured: measured / in_calm,
        threshold: Threshold::AtMost(1.2),
        unit: Unit::Times,
        description: format!(
            "{name}: row writes divided by those in calm; {measured:.0} /s, in calm {in_calm:.0} /s"
        ),
    }
}
