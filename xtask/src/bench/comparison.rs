//! Plain starts and webhooks of this build against another build, in interleaved rounds.

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

/// Duration of the starts of a turn. The speed of a shared machine changes within seconds, so both
/// builds must take many short turns within each second or two.
const TURN_DURATION: Duration = Duration::from_millis(250);

/// The order of the builds in successive turns: this build is 0. Each build follows the other
/// equally often, and a drift of the machine affects both alike.
const ORDER: [usize; 8] = [0, 1, 1, 0, 1, 0, 0, 1];

/// Number of turns in a round, half of them of each build.
const TURNS: usize = 4 * ORDER.len();

/// Time limit for the keeper to check all sessions that are due.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Sessions with open rooms that the webhooks are about.
const SESSIONS: usize = 100;

/// Number of visits of every user in a turn.
const VISITS: usize = 6;

/// Minimum of the lower bound of the ratio's 95 % interval.
const NOT_SLOWER: f64 = 0.97;

/// One build under both loads.
struct Side {
    deployment: Deployment,
    starts: StartLoad,
    sessions: Vec<StartedSession>,
}

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let against = env.against.as_deref().context("name the other build with --against")?;
    let this = Side::start(env, &env.program, "this").await?;
    let other = Side::start(env, against, "other").await?;
    let (mut starts, mut webhooks) = (Vec::new(), Vec::new());
    for round in 0..env.rounds {
        let (mut start_rates, mut webhook_rates) = ([0.0; 2], [0.0; 2]);
        for (turn, side) in ORDER.into_iter().cycle().take(TURNS).enumerate() {
            let build = [&this, &other][side];
            // The keeper of the previous turn must not compete with this turn.
            this.settle().await?;
            other.settle().await?;
            start_rates[side] += build.starts.run(TURN_DURATION).await?;
            let visit = VISITS * (usize::try_from(round)? * TURNS + turn);
            webhook_rates[side] += build.webhook_rate(visit..visit + VISITS).await?;
        }
        starts.push(start_rates.into());
        webhooks.push(webhook_rates.into());
    }
    // A round sums the rates of several turns.
    let turns = f64::from(u32::try_from(TURNS / 2)?);
    for (this, other) in starts.iter_mut().chain(&mut webhooks) {
        *this /= turns;
        *other /= turns;
    }
    Ok(vec![measurement("plain starts", &starts)?, measurement("webhooks", &webhooks)?])
}

fn measurement(what: &str, pairs: &[(f64, f64)]) -> Result<Measurement> {
    let Ratio { mean, lower, upper } = Ratio::of_pairs(pairs).context("run 2 to 21 rounds")?;
    let (this, other): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    let (this, other) = (median(&this), median(&other));
    Ok(Measurement {
        measured: lower,
        threshold: Threshold::AtLeast(NOT_SLOWER),
        unit: Unit::Times,
        description: format!(
            "{what}: ratio {mean:.3}, 95 % interval {lower:.3} to {upper:.3}, {} rounds; \
             medians {this:.0} /s against {other:.0} /s",
            pairs.len()
        ),
    })
}

impl Side {
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

    /// Sends the webhooks of these visits of every user, and returns their rate per second.
    async fn webhook_rate(&self, visits: Range<usize>) -> Result<f64> {
        let at = caller::seconds_from_now(0);
        let mut requests = Vec::new();
        for visit in visits {
            for (event, kind) in ["participant_joined", "participant_left"].into_iter().enumerate()
            {
                for (number, session) in self.sessions.iter().enumerate() {
                    let number = visit * SESSIONS + number;
                    let event =
                        webhook_load::event(kind, &session.room, number, 2 * number + event, at);
                    requests.push(webhook_load::request(&self.deployment.livekit, &event));
                }
            }
        }
        let count = f64::from(u32::try_from(requests.len())?);
        let sent = webhook_load::send(self.deployment.service.address(), requests).await?;
        Ok(count / sent.took.as_secs_f64())
    }
}
