//! 20,000 sessions while LiveKit has lost a node, hangs, or refuses every call: agents in healthy
//! rooms are seen as fast as before, deadlines are exact, and PostgreSQL is not loaded.

mod agent_times;
mod scale;

use std::time::Duration;
use std::time::Instant;

use anyhow::{Result, ensure};
use greenroom_testkit::livekit::{ScriptedApi, Trouble};
use greenroom_testkit::{sleep_for, wait_until};
use serde_json::json;

use self::agent_times::AgentTimes;
use self::scale::{FULL, QUICK, Scale};
use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::starts;
use crate::service::Service;

/// Maximum time until the rooms of a dead node are observed after it is back. The keeper does not ask
/// a dead node again for 30 s, its report takes three seconds, and the interval until the next check
/// of a missing room is half of the time that the room has been missing.
const MAX_REOBSERVATION: Duration = Duration::from_secs(100);

/// Number of processes of the service, each with a keeper, until the outages.
const REPLICAS: usize = 2;

/// Sessions in progress, with the user and the agent that the script has in each room.
const MAKE_ACTIVE: &str = "
    update sessions set status = 'active', started_at = now(), user_joined_at = now(),
      room_created_at = now(), end_by = now() + interval '1 hour', agent_status = 'ready',
      agent_identity = 'agent', agent_wanted_since = now(), last_dispatch_at = now(),
      next_check_at = now() + random() * interval '1 second' * $1::integer";

/// Longest delay, in milliseconds, of the deadlines in the last `$1` seconds.
const MAX_LATENESS: &str = "
    select coalesce(max(extract(epoch from coalesce(ended_at, now()) - end_by)) * 1000, 0)::bigint
    from sessions where end_by between now() - interval '1 second' * $1::integer and now()";

/// Number of active sessions without their room.
const MISSING_ROOMS: &str =
    "select count(*) from sessions where status = 'active' and room_missing_since is not null";

const REVISIONS: &str = "select sum(revision)::bigint from sessions";

/// The service in one situation.
struct Situation {
    /// Row writes of all replicas per second.
    writes: f64,
    /// Longest delay of a deadline, in seconds.
    lateness: f64,
    agents: AgentTimes,
}

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let mut bench = Bench::start(env, if env.is_quick { &QUICK } else { &FULL }).await?;
    let scale = bench.scale;
    // Wait until the checks of the sessions are spread over the interval.
    sleep_for(scale.settling).await?;
    let baseline_since = Instant::now();
    let baseline = bench.situation(scale.situation, scale.agents).await?;
    let baseline_checks = bench.checks_per_second(baseline_since, scale.situation);
    ensure!(baseline_checks > 50.0, "only {baseline_checks:.0} checks per second");

    let mut measurements = vec![writes_figure("without trouble", &baseline, baseline_checks)];
    measurements.extend(dead_node(&bench, &baseline, baseline_checks).await?);
    if !env.is_quick {
        // Takes up to one and a half minutes.
        measurements.push(bench.rooms_observed_again().await?);
    }
    // One replica during the outages, so that the rate of one process is compared.
    bench.replicas.clear();
    for (trouble, name) in
        [(Trouble::Hangs, "LiveKit hangs"), (Trouble::Refuses, "LiveKit refuses")]
    {
        measurements.extend(outage(&bench, (trouble, name), baseline_checks).await?);
    }
    Ok(measurements)
}

/// Measures the situation in which a node with some of the rooms is dead.
async fn dead_node(
    bench: &Bench,
    baseline: &Situation,
    baseline_checks: f64,
) -> Result<Vec<Measurement>> {
    let scale = bench.scale;
    bench.livekit.set_dead_rooms(bench.some_rooms().await?);
    let dead = bench.situation(scale.situation, scale.agents).await?;
    let missing = bench.deployment.number(MISSING_ROOMS).await?;
    ensure!(missing > 0, "the keeper has not noticed the dead node");
    bench.livekit.set_dead_rooms([]);
    let Scale { dead_rooms, sessions, .. } = scale;
    let mut measurements = dead
        .agents
        .compare(&baseline.agents, &format!("dead node with {dead_rooms} of {sessions} rooms"));
    measurements.extend([
        lateness_figure("dead node", &dead),
        writes_figure("dead node", &dead, baseline_checks),
    ]);
    Ok(measurements)
}

/// Measures the situation in which LiveKit fails every call, and its recovery.
async fn outage(
    bench: &Bench,
    (trouble, name): (Trouble, &str),
    baseline_checks: f64,
) -> Result<[Measurement; 3]> {
    bench.livekit.set_trouble(trouble);
    // Without starts, because LiveKit opens no rooms.
    let situation = bench.situation(bench.scale.outage, 0).await?;
    bench.livekit.set_trouble(Trouble::None);
    let most = bench.most_checks_after_recovery().await?;
    let burst = Measurement {
        measured: most / baseline_checks,
        threshold: Threshold::AtMost(bench.scale.max_burst),
        unit: Unit::Times,
        description: format!(
            "{name}: most checks in one second after recovery, divided by the rate without trouble"
        ),
    };
    Ok([lateness_figure(name, &situation), writes_figure(name, &situation, baseline_checks), burst])
}

struct Bench {
    scale: &'static Scale,
    livekit: ScriptedApi,
    /// The replicas beside that of the deployment. Stopped before its database.
    replicas: Vec<Service>,
    deployment: Deployment,
    /// The template of the sessions that wait for their agent.
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
        let mut replicas = Vec::new();
        for number in 2..=REPLICAS {
            let name = format!("troubles-{number}");
            replicas.push(deployment.start_replica(env, &name, &settings).await?);
        }
        let template = |name, room_creation| {
            json!({ "name": name, "agent_name": "agent", "room_creation": room_creation,
                "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600 })
        };
        let in_progress = deployment.api.create_template(&template("Calls", "on_join")).await?;
        let with_agent = deployment.api.create_template(&template("Agents", "on_start")).await?;
        starts::start_sessions(&deployment.api, &in_progress, scale.sessions).await?;
        let seconds = i32::try_from(scale.reconcile_seconds)?;
        deployment.sql.execute(MAKE_ACTIVE, &[&seconds]).await?;
        Ok(Self { scale, livekit, replicas, deployment, with_agent })
    }

    /// Measures one situation, with this number of starts.
    async fn situation(&self, duration: Duration, agents: u32) -> Result<Situation> {
        let Scale { deadlines, spread, .. } = *self.scale;
        self.set_deadlines(deadlines, spread).await?;
        let (begun, before) = (Instant::now(), self.deployment.number(REVISIONS).await?);
        let mut started = Vec::new();
        for _ in 0..agents {
            let session = starts::start_session(&self.deployment.api, &self.with_agent).await?;
            started.push(session.id);
            sleep_for(spread / agents).await?;
        }
        sleep_for(duration.saturating_sub(begun.elapsed())).await?;
        let elapsed = begun.elapsed();
        let writes = self.deployment.number(REVISIONS).await? - before;
        Ok(Situation {
            writes: f64::from(i32::try_from(writes)?) / elapsed.as_secs_f64(),
            lateness: self.lateness(elapsed).await?,
            agents: AgentTimes::of(&self.deployment, &started).await?,
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

    /// Returns the longest delay, in seconds, of the deadlines within this time until now.
    async fn lateness(&self, within: Duration) -> Result<f64> {
        let within = i32::try_from(within.as_secs())?;
        let milliseconds: i64 =
            self.deployment.sql.query_one(MAX_LATENESS, &[&within]).await?.try_get(0)?;
        Ok(f64::from(i32::try_from(milliseconds)?) / 1_000.0)
    }

    /// Waits until the rooms of the node that is back are observed.
    async fn rooms_observed_again(&self) -> Result<Measurement> {
        let back_at = Instant::now();
        wait_until("the rooms to be observed again", MAX_REOBSERVATION * 2, async || {
            let missing = self.deployment.number(MISSING_ROOMS).await?;
            Ok((missing == 0).then_some(()))
        })
        .await?;
        Ok(Measurement {
            measured: back_at.elapsed().as_secs_f64(),
            threshold: Threshold::AtMost(MAX_REOBSERVATION.as_secs_f64()),
            unit: Unit::Seconds,
            description: "dead node: all rooms are observed again after it is back".to_owned(),
        })
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

fn lateness_figure(name: &str, situation: &Situation) -> Measurement {
    Measurement {
        measured: situation.lateness,
        threshold: Threshold::AtMost(2.0),
        unit: Unit::Seconds,
        description: format!("{name}: longest delay of a maximum duration"),
    }
}

/// Divides the row writes by the checks without trouble. A check without a consequence writes
/// nothing.
fn writes_figure(name: &str, situation: &Situation, baseline_checks: f64) -> Measurement {
    let writes = situation.writes;
    Measurement {
        measured: writes / baseline_checks,
        threshold: Threshold::AtMost(0.2),
        unit: Unit::Times,
        description: format!(
            "{name}: row writes per second, divided by the checks per second without trouble; \
             {writes:.0} writes, {baseline_checks:.0} checks without trouble"
        ),
    }
}
