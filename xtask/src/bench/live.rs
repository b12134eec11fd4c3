//! Sessions in progress while others start and end at the same rate: the CPU time of Greenroom and
//! PostgreSQL, the delay of deadlines, and the row updates per session, with and without a snapshot
//! that a long transaction holds open.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Result, ensure};
use greenroom_testkit::livekit::ScriptedApi;
use greenroom_testkit::{caller, sleep_for};
use serde_json::{Value, json};
use tokio::time::interval;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::raw_http::Connection;
use super::{process, starts, webhook_load};

const AGENT: &str = "agent";

const FEW_SESSIONS: usize = 10_000;

const MANY_SESSIONS: usize = 100_000;

/// Mean duration of a session. So many sessions start and end in it as are in progress.
const MEAN_DURATION: Duration = Duration::from_hours(1);

/// Time in which the checks spread over the interval.
const SETTLING: Duration = Duration::from_mins(1);

const MEASUREMENT: Duration = Duration::from_mins(1);

/// How long the snapshot is held before the second measurement, which is the last minute of ten.
const SNAPSHOT_AGE: Duration = Duration::from_mins(9);

const HOLD_SNAPSHOT: &str =
    "begin transaction isolation level repeatable read; select from sessions limit 1";

/// Maximum CPU time of Greenroom with [`FEW_SESSIONS`], in percent of one core.
const MAX_CPU_PERCENT_OF_FEW: f64 = 3.0;

/// Maximum CPU time of Greenroom, and of PostgreSQL, with [`MANY_SESSIONS`], in percent of one core.
const MAX_CPU_PERCENT: f64 = 30.0;

const MAX_SECONDS_LATE: f64 = 2.0;

/// Maximum number of row updates of a session that ends by its maximum duration, with the notice of
/// its end.
const MAX_UPDATES: f64 = 14.0;

/// Minimum share of the row updates that change no index.
const MIN_HOT_PERCENT: f64 = 50.0;

/// The sessions that are in progress at first, with the user and the agent that the script has in
/// each room. They end at a constant rate.
const MAKE_ACTIVE: &str = "
    update sessions set status = 'active', started_at = now(), user_joined_at = now(),
      room_created_at = now(), end_by = now() + random() * interval '1 second' * $1::integer,
      agent_status = 'ready', agent_identity = 'agent', agent_wanted_since = now(),
      last_dispatch_at = now(), next_check_at = now(), revision = revision + 1";

/// Longest delay, in seconds, of the deadlines in the last `$1` seconds.
const MAX_LATENESS: &str = "
    select coalesce(max(extract(epoch from coalesce(ended_at, now()) - end_by)), 0)::float8
    from sessions where end_by between now() - interval '1 second' * $1::integer and now()";

const ENDED: &str = "select count(*) from sessions where ended_at is not null";

/// The row updates of sessions, and those that changed no index.
const UPDATES: &str = "select n_tup_upd from pg_stat_user_tables where relname = 'sessions'";
const HOT_UPDATES: &str =
    "select n_tup_hot_upd from pg_stat_user_tables where relname = 'sessions'";

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let few = LiveSessions::start(env, FEW_SESSIONS).await?;
    let mut measurements = few.measure_during_calls(measure_few(&few)).await?;
    drop(few);
    let many = LiveSessions::start(env, MANY_SESSIONS).await?;
    measurements.extend(many.measure_during_calls(measure_many(&many)).await?);
    Ok(measurements)
}

/// A deployment with sessions in progress.
struct LiveSessions {
    livekit: ScriptedApi,
    deployment: Deployment,
    count: usize,
}

impl LiveSessions {
    async fn start(env: &BenchEnv, count: usize) -> Result<Self> {
        let livekit = ScriptedApi::start(starts::USER, AGENT).await?;
        let deployment = Deployment::start(env, "live", &[("LIVEKIT_URL", livekit.url())]).await?;
        let first = deployment.api.create_template(&template("First", "on_join")).await?;
        starts::start_sessions(&deployment.api, &first, count).await?;
        let seconds = i32::try_from(MEAN_DURATION.as_secs())?;
        deployment.sql.execute(MAKE_ACTIVE, &[&seconds]).await?;
        deployment.sql.batch_execute("vacuum analyze sessions").await?;
        Ok(Self { livekit, deployment, count })
    }

    /// Measures while sessions start and end.
    async fn measure_during_calls(
        &self,
        measure: impl Future<Output = Result<Vec<Measurement>>>,
    ) -> Result<Vec<Measurement>> {
        let calls = Calls::new(self).await?;
        tokio::select! {
            ended = calls.run() => match ended? {},
            measurements = measure => measurements,
        }
    }
}

async fn measure_few(sessions: &LiveSessions) -> Result<Vec<Measurement>> {
    sleep_for(SETTLING).await?;
    let usage = Usage::measure(sessions).await?;
    Ok(vec![usage.service_time(MAX_CPU_PERCENT_OF_FEW, "")])
}

async fn measure_many(sessions: &LiveSessions) -> Result<Vec<Measurement>> {
    sleep_for(SETTLING).await?;
    let mut measurements = Usage::measure(sessions).await?.measurements("");
    let snapshot = sessions.deployment.connect().await?;
    snapshot.batch_execute(HOLD_SNAPSHOT).await?;
    sleep_for(SNAPSHOT_AGE).await?;
    let usage = Usage::measure(sessions).await?;
    measurements.extend(usage.measurements("with a snapshot held for ten minutes: "));
    Ok(measurements)
}

fn template(name: &str, room_creation: &str) -> Value {
    json!({ "name": name, "agent_name": AGENT, "room_creation": room_creation,
        "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600 })
}

/// The cost of one minute.
struct Usage {
    /// Number of sessions in progress.
    sessions: usize,
    /// Number of sessions that ended.
    ended: f64,
    service: Duration,
    postgres: Duration,
    /// Longest delay of a deadline, in seconds.
    lateness: f64,
    /// Row updates of sessions, and those that changed no index.
    updates: f64,
    hot_updates: f64,
}

impl Usage {
    async fn measure(
        LiveSessions { deployment, count: sessions, .. }: &LiveSessions,
    ) -> Result<Self> {
        let service = deployment.service.pid()?;
        let backend = u32::try_from(deployment.number("select pg_backend_pid()::bigint").await?)?;
        let counters = async || {
            anyhow::Ok((
                [
                    count(deployment, ENDED).await?,
                    count(deployment, UPDATES).await?,
                    count(deployment, HOT_UPDATES).await?,
                ],
                [process::processor_time(service)?, process::server_time(backend)?],
            ))
        };
        let (counts_before, times_before) = counters().await?;
        sleep_for(MEASUREMENT).await?;
        let (counts, times) = counters().await?;
        let seconds = i32::try_from(MEASUREMENT.as_secs())?;
        let lateness = deployment.sql.query_one(MAX_LATENESS, &[&seconds]).await?.try_get(0)?;
        let [ended, updates, hot_updates] =
            std::array::from_fn(|number| counts[number] - counts_before[number]);
        ensure!(ended > 0.0, "no session ended");
        Ok(Self {
            sessions: *sessions,
            ended,
            service: times[0].saturating_sub(times_before[0]),
            postgres: times[1].saturating_sub(times_before[1]),
            lateness,
            updates,
            hot_updates,
        })
    }

    fn service_time(&self, maximum: f64, situation: &str) -> Measurement {
        let Self { sessions, ended, .. } = self;
        Measurement {
            measured: percent(self.service),
            threshold: Threshold::AtMost(maximum),
            unit: Unit::Percent,
            description: format!(
                "{situation}of a core for Greenroom; {sessions} sessions, {ended} ended in a minute"
            ),
        }
    }

    fn measurements(&self, situation: &str) -> Vec<Measurement> {
        let Self { ended, updates, .. } = self;
        let measurement = |measured, threshold, unit, description: String| Measurement {
            measured,
            threshold,
            unit,
            description: format!("{situation}{description}"),
        };
        vec![
            self.service_time(MAX_CPU_PERCENT, situation),
            measurement(
                percent(self.postgres),
                Threshold::AtMost(MAX_CPU_PERCENT),
                Unit::Percent,
                "of a core for PostgreSQL".to_owned(),
            ),
            measurement(
                self.lateness,
                Threshold::AtMost(MAX_SECONDS_LATE),
                Unit::Seconds,
                "longest delay of a maximum duration".to_owned(),
            ),
            measurement(
                updates / ended,
                Threshold::AtMost(MAX_UPDATES),
                Unit::Count,
                format!("row updates per session that ended; {updates} updates"),
            ),
            measurement(
                self.hot_updates / updates * 100.0,
                Threshold::AtLeast(MIN_HOT_PERCENT),
                Unit::Percent,
                "of the row updates changed no index (HOT)".to_owned(),
            ),
        ]
    }
}

/// Converts a CPU time during [`MEASUREMENT`] to percent of one core.
fn percent(time: Duration) -> f64 {
    time.as_secs_f64() / MEASUREMENT.as_secs_f64() * 100.0
}

async fn count(deployment: &Deployment, query: &str) -> Result<f64> {
    Ok(f64::from(i32::try_from(deployment.number(query).await?)?))
}

/// The sessions that start and end during the measurement.
struct Calls<'a> {
    sessions: &'a LiveSessions,
    template: String,
    webhooks: Connection,
    /// Number of webhooks so far.
    events: usize,
}

impl<'a> Calls<'a> {
    async fn new(sessions: &'a LiveSessions) -> Result<Self> {
        let deployment = &sessions.deployment;
        let template = deployment.api.create_template(&template("Later", "on_start")).await?;
        let webhooks = Connection::open(deployment.service.address()).await?;
        Ok(Self { sessions, template, webhooks, events: 0 })
    }

    /// Starts sessions at a constant rate until the future is dropped. Sends the webhooks of their
    /// rooms, and of the rooms that the keeper deletes.
    async fn run(mut self) -> Result<Infallible> {
        let mut starts = interval(MEAN_DURATION / u32::try_from(self.sessions.count)?);
        loop {
            starts.tick().await;
            let room =
                starts::start_session(&self.sessions.deployment.api, &self.template).await?.room;
            self.send_room_event("room_started", &room).await?;
            self.send_participant_events("participant_joined", &room).await?;
            for room in self.sessions.livekit.take_deleted() {
                self.send_participant_events("participant_left", &room).await?;
                self.send_room_event("room_finished", &room).await?;
            }
        }
    }

    async fn send_participant_events(&mut self, kind: &str, room: &str) -> Result<()> {
        let at = caller::seconds_from_now(0);
        self.events += 2;
        self.send(&webhook_load::agent_event(kind, room, AGENT, self.events, at)).await?;
        self.send(&webhook_load::event(kind, room, self.events + 1, self.events + 1, at)).await
    }

    async fn send_room_event(&mut self, kind: &str, room: &str) -> Result<()> {
        let at = caller::seconds_from_now(0);
        self.events += 1;
        self.send(&webhook_load::room_event(kind, room, self.events, at)).await
    }

    async fn send(&mut self, event: &Value) -> Result<()> {
        let request = webhook_load::request(&self.sessions.deployment.livekit, event);
        let status = self.webhooks.send(&request).await?;
        ensure!(status == 200, "a webhook returned {status}");
        Ok(())
    }
}
