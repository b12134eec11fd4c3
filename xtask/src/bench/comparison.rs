//! Compares starts and webhooks of this build with another build, in rounds of alternating turns.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use greenroom_testkit::{caller, wait_until};
use serde_json::json;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::start_load::StartLoad;
use super::starts::{self, StartedSession};
use super::statistics::{Ratio, median};
use super::webhook_load;

/// Duration of the starts in a turn. The speed of a shared machine drifts within seconds, so the
/// turns of both builds must alternate faster than that.
const TURN_DURATION: Duration = Duration::from_millis(250);

/// The order of the builds in successive turns: this build is 0. Each build follows the other
/// equally often, and a drift of the machine affects both alike.
const ORDER: [usize; 8] = [0, 1, 1, 0, 1, 0, 0, 1];

/// Number of turns in a round, half of them of each build.
const TURNS: usize = 4 * ORDER.len();

/// Time limit for the keeper to check all sessions that are due.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of sessions that receive webhooks.
const SESSIONS: usize = 100;

/// Number of times that each user joins and leaves in a turn.
const JOINS_PER_TURN: usize = 6;

/// The lower bound of the ratio's 95 % interval must reach this value.
const NOT_SLOWER: f64 = 0.97;

/// One build under both loads.
struct Build {
    deployment: Deployment,
    starts: StartLoad,
    sessions: Vec<StartedSession>,
}

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let against =
        env.against.as_deref().context("`--against` is missing: name the other build's program")?;
    let this = Build::start(env, &env.program, "this").await?;
    let other = Build::start(env, against, "other").await?;
    let (mut starts, mut webhooks) = (Vec::new(), Vec::new());
    for round in 0..env.rounds {
        let (mut start_rates, mut webhook_rates) = ([0.0; 2], [0.0; 2]);
        for (turn, index) in ORDER.into_iter().cycle().take(TURNS).enumerate() {
            let build = [&this, &other][index];
            // The keeper must not compete with the load.
            this.settle().await?;
            other.settle().await?;
            start_rates[index] += build.starts.run(TURN_DURATION).await?;
            let join = JOINS_PER_TURN * (usize::try_from(round)? * TURNS + turn);
            webhook_rates[index] += build.webhook_rate(join..join + JOINS_PER_TURN).await?;
        }
        starts.push(start_rates.into());
        webhooks.push(webhook_rates.into());
    }
    // The sums are over `TURNS / 2` turns.
    let turns = f64::from(u32::try_from(TURNS / 2)?);
    for (this, other) in starts.iter_mut().chain(&mut webhooks) {
        *this /= turns;
        *other /= turns;
    }
    Ok(vec![measurement("plain starts", &starts)?, measurement("webhooks", &webhooks)?])
}

fn measurement(load: &str, pairs: &[(f64, f64)]) -> Result<Measurement> {
    let Ratio { mean, lower, upper } = Ratio::of_pairs(pairs).context("run 2 to 21 rounds")?;
    let (this, other): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    let (this, other) = (median(&this), median(&other));
    Ok(Measurement {
        measured: lower,
        threshold: Threshold::AtLeast(NOT_SLOWER),
        unit: Unit::Times,
        description: format!(
            "{load}: ratio {mean:.3}, 95 % interval {lower:.3} to {upper:.3}, {} rounds; \
             medians {this:.0} /s against {other:.0} /s",
            pairs.len()
        ),
    })
}

impl Build {
    async fn start(env: &BenchEnv, program: &Path, name: &str) -> Result<Self> {
        let env = BenchEnv { program: program.to_owned(), ..env.clone() };
        let settings = [("GREENROOM_RECONCILE_SECONDS", "3600")];
        let deployment = Deployment::start(&env, name, &settings).await?;
        let starts = StartLoad::plain(&deployment).await?;
        let rooms = json!({
            "name": "Rooms", "join_window_seconds": 3_600, "reconnect_window_seconds": 3_600,
        });
        let template = deployment.api.create_template(&rooms).await?;
        let sessions = starts::start_sessions(&deployment.api, &template, SESSIONS).await?;
        Ok(Self { deployment, starts, sessions })
    }

    /// Waits until the keeper has checked all sessions that are due.
    async fn settle(&self) -> Result<()> {
        let due = "select count(*) from sessions where next_check_at <= now()";
        wait_until("the keeper to check all due sessions", SETTLE_TIMEOUT, async || {
            let due = self.deployment.number(due).await?;
            Ok((due == 0).then_some(()))
        })
        .await
    }

    /// Sends the webhooks of these joins of each user and of the departures after them, and returns
    /// their rate per second.
    async fn webhook_rate(&self, joins: Range<usize>) -> Result<f64> {
        let at = caller::seconds_from_now(0);
        let mut requests = Vec::new();
        for join in joins {
            for (index, kind) in ["participant_joined", "participant_left"].into_iter().enumerate()
            {
                for (number, session) in self.sessions.iter().enumerate() {
                    let join = join * SESSIONS + number;
                    let event =
                        webhook_load::event(kind, &session.room, join, 2 * join + index, at);
                    requests.push(webhook_load::request(&self.deployment.livekit, &event));
                }
            }
        }
        let count = f64::from(u32::try_from(requests.len())?);
        let sent = webhook_load::send(self.deployment.service.address(), requests).await?;
        Ok(count / sent.took.as_secs_f64())
    }
}
