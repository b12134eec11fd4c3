//! Starts far above capacity: accepted starts stay fast, the others are refused at once, and nothing
//! that was refused stays behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::raw_http::Connection;
use super::start_load::StartLoad;
use super::starts;

/// Offered starts as multiples of the capacity.
const LEVELS: [f64; 3] = [1.3, 3.0, 10.0];

/// The levels of `--quick`.
const QUICK_LEVELS: [f64; 1] = [1.5];

/// By how much the thresholds of `--quick` are wider, for a debug build beside other checks.
const QUICK_TOLERANCE: f64 = 3.0;

/// Duration of the load at each level before it is measured, because the queue fills first.
const WARM_UP: Duration = Duration::from_secs(1);

/// Duration of the measured load at each level.
const MEASURED: Duration = Duration::from_secs(5);

/// Time from the end of the load to the measurement of the recovery.
const RECOVERY_DELAY: Duration = Duration::from_secs(2);

const CAPACITY_DURATION: Duration = Duration::from_secs(4);

/// Connections that measure the capacity and the recovery: enough to fill two statements.
const CLIENTS: usize = 160;

/// The connections of `--quick`. They reach the capacity, which does not depend on full statements.
const QUICK_CLIENTS: usize = 64;

/// Time after which a kept connection is not used again. The service closes it after five seconds.
const MAX_IDLE: Duration = Duration::from_secs(2);

/// Sessions whose join window ends during each load.
const DEADLINES: usize = 60;

/// Makes commits of sessions slow, one after another. The capacity then depends on them and not on the
/// CPU, which the load generator shares. `SLEEP` is executed for each session.
const SLOW_COMMITS: &str = "
    create function bench_slow_commit() returns trigger language plpgsql as
      $$ begin perform pg_advisory_xact_lock(1); SLEEP return null; end $$;
    create constraint trigger bench_slow_commit after insert on sessions
      deferrable initially deferred for each row execute function bench_slow_commit()";

/// Each commit takes 40 ms, as on a slow disk.
const SLEEP_PER_COMMIT: &str = "
    if current_setting('bench.has_slept', true) is distinct from 'true' then
      perform set_config('bench.has_slept', 'true', true);
      perform pg_sleep(0.04);
    end if;";

/// Each session takes about a millisecond: a capacity that a debug build beside other checks can exceed.
const SLEEP_PER_SESSION: &str = "perform pg_sleep(0.0004);";

/// Sessions of the loads that are not over.
const OPEN_SESSIONS: &str = "select count(*) from sessions join session_templates template
    on template.id = session_template_id where template.name = 'Plain' and status = 'pending'";

/// Longest delay of the end of a join window, in milliseconds.
const MAX_LATENESS: &str =
    "select (max(extract(epoch from coalesce(ended_at, now()) - join_by)) * 1000)::bigint
    from sessions join session_templates template on template.id = session_template_id
    where template.name = 'Deadlines' and join_by < now()";

/// The response to one start.
struct Outcome {
    /// When the start was due, since the beginning of the load.
    due: Duration,
    /// From then until the response.
    took: Duration,
    status: u16,
}

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let deployment = Deployment::start(env, "overload", &[]).await?;
    let load = Arc::new(StartLoad::plain(&deployment).await?);
    let (levels, tolerance) =
        if env.is_quick { (&QUICK_LEVELS[..], QUICK_TOLERANCE) } else { (&LEVELS[..], 1.0) };
    let template = json!({ "name": "Deadlines", "room_creation": "on_join" });
    let template = deployment.api.create_template(&template).await?;
    starts::start_sessions(&deployment.api, &template, DEADLINES * levels.len()).await?;
    let delay = if env.is_quick { SLEEP_PER_SESSION } else { SLEEP_PER_COMMIT };
    deployment.sql.batch_execute(&SLOW_COMMITS.replace("SLEEP", delay)).await?;
    let clients = if env.is_quick { QUICK_CLIENTS } else { CLIENTS };
    let capacity = load.run_on(clients, CAPACITY_DURATION).await?;
    let mut measurements = Vec::new();
    for &level in levels {
        set_deadlines(&deployment).await?;
        let open_before = deployment.number(OPEN_SESSIONS).await?;
        let outcomes = offer(&load, capacity * level).await?;
        sleep(RECOVERY_DELAY).await;
        let open = deployment.number(OPEN_SESSIONS).await? - open_before;
        let recovered = load.run_on(clients, CAPACITY_DURATION).await?;
        measurements.extend(at_level(level, capacity, tolerance, &outcomes)?);
        let accepted = i64::try_from(outcomes.iter().filter(|one| one.status == 201).count())?;
        measurements.push(Measurement {
            measured: f64::from(i32::try_from((open - accepted).abs())?),
            threshold: Threshold::AtMost(0.0),
            unit: Unit::Count,
            description: format!("{level} ×: sessions without a success, 2 s after the load"),
        });
        measurements.push(Measurement {
            measured: recovered / capacity,
            threshold: Threshold::AtLeast(0.9 / tolerance),
            unit: Unit::Times,
            description: format!("{level} ×: rate from 2 s after the load, in capacities"),
        });
    }
    let late = deployment.number(MAX_LATENESS).await?;
    measurements.push(Measurement {
        measured: f64::from(i32::try_from(late)?) / 1_000.0,
        threshold: Threshold::AtMost(2.0),
        unit: Unit::Seconds,
        description: format!("lateness of {} deadlines during the loads", DEADLINES * levels.len()),
    });
    Ok(measurements)
}

/// Moves the deadlines of some sessions into the next load.
async fn set_deadlines(deployment: &Deployment) -> Result<()> {
    let update = format!(
        "update sessions set join_by = due.at, next_check_at = due.at
         from (select id, now() + random() * interval '{} seconds' as at from sessions
           join session_templates template on template.id = session_template_id
           where template.name = 'Deadlines' and status = 'pending' limit {DEADLINES}) due
         where sessions.id = due.id",
        (WARM_UP + MEASURED).as_secs()
    );
    Ok(deployment.sql.batch_execute(&update.replace("select id,", "select sessions.id,")).await?)
}

/// Sends starts at a fixed rate, whether or not earlier ones have been answered, as many independent
/// clients do.
async fn offer(load: &Arc<StartLoad>, rate: f64) -> Result<Vec<Outcome>> {
    let idle = Arc::new(Mutex::new(Vec::<(Instant, Connection)>::new()));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0_u32.. {
        let due = Duration::from_secs_f64(f64::from(number) / rate);
        if due > WARM_UP + MEASURED {
            break;
        }
        sleep_until(begun + due).await;
        let (load, idle) = (load.clone(), idle.clone());
        clients.spawn(async move {
            let kept = idle.lock().pop().filter(|(since, _)| since.elapsed() < MAX_IDLE);
            let mut connection = match kept {
                Some((_, connection)) => connection,
                None => load.connect().await?,
            };
            let status = connection.send(load.request(usize::try_from(number)?)).await?;
            let took = begun.elapsed().saturating_sub(due);
            idle.lock().push((Instant::now(), connection));
            Ok(Outcome { due, took, status })
        });
    }
    clients.join_all().await.into_iter().collect()
}

/// The rate of accepted starts, and the response times of accepted and of refused starts.
fn at_level(
    level: f64,
    capacity: f64,
    tolerance: f64,
    outcomes: &[Outcome],
) -> Result<Vec<Measurement>> {
    let measured = |one: &&Outcome| (WARM_UP..WARM_UP + MEASURED).contains(&one.due);
    let (accepted, refused): (Vec<_>, Vec<_>) =
        outcomes.iter().filter(measured).partition(|one| one.status == 201);
    let unexpected = refused.iter().find(|one| one.status != 503);
    ensure!(unexpected.is_none(), "a start returned {}", unexpected.map_or(0, |one| one.status));
    let seconds = MEASURED.as_secs_f64();
    let goodput = f64::from(u32::try_from(accepted.len())?) / seconds;
    let offered = f64::from(u32::try_from(accepted.len() + refused.len())?) / seconds;
    ensure!(level < 2.0 || !refused.is_empty(), "{offered:.0} starts per second are no overload");
    Ok(vec![
        Measurement {
            measured: goodput / capacity,
            threshold: Threshold::AtLeast(0.9 / tolerance),
            unit: Unit::Times,
            description: format!(
                "{level} ×: goodput in capacities; {goodput:.0} /s of {offered:.0} /s offered, capacity {capacity:.0} /s"
            ),
        },
        Measurement {
            measured: p99_milliseconds(&accepted),
            threshold: Threshold::AtMost(250.0 * tolerance),
            unit: Unit::Milliseconds,
            description: format!("{level} ×: p99 of {} accepted starts", accepted.len()),
        },
        Measurement {
            measured: p99_milliseconds(&refused),
            threshold: Threshold::AtMost(50.0 * tolerance),
            unit: Unit::Milliseconds,
            description: format!("{level} ×: p99 of {} refusals", refused.len()),
        },
    ])
}

fn p99_milliseconds(outcomes: &[&Outcome]) -> f64 {
    let mut times: Vec<_> = outcomes.iter().map(|one| one.took).collect();
    times.sort_unstable();
    times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}
