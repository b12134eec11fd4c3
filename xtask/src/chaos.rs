//! `cargo xtask chaos agents`: sessions through the public API while their agents have trouble.

mod agents;
mod calls;
mod outages;
mod replicas;
mod scenario;
mod stage;
mod watch;
mod workers;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use greenroom_testkit::place;
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::scenario::Scenario;
use self::stage::{Ground, Stage};
use crate::parts::Postgres;
use crate::steps::{Steps, seconds};
use crate::{parts, service};

/// Most of a scenario is waiting, so several share two cores.
const AT_ONCE: usize = 3;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Agents that come late, are full, crash, hang up, or lose their LiveKit.
    Agents(Agents),
}

#[derive(Args)]
struct Agents {
    /// How often each scenario is played; from two on, bursts are larger.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Play this scenario only; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// How the rounds of one scenario went.
struct Score {
    name: &'static str,
    passed: u32,
    failed: u32,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let What::Agents(agents) = arguments.what;
    let scenarios = chosen(&agents.only)?;
    let started = Instant::now();
    println!("The real parts\n");
    let steps = Arc::new(Steps::new());
    let (postgres, (), program) = tokio::try_join!(
        Postgres::for_tests(&steps),
        parts::python(&steps),
        service::build(&steps)
    )?;
    let home = place::target().join("chaos");
    std::fs::remove_dir_all(&home).ok();
    let ground = Arc::new(Ground {
        program,
        database_url: postgres.url.clone(),
        home,
        client: Client::new(),
        long: agents.rounds > 1,
    });
    println!("\nThe trouble{:>16}{:>23}{:>10}\n", "took", "rounds", "agent in");
    let scores = play_all(&steps, &ground, scenarios, agents.rounds).await?;
    Ok(verdict(&scores, started.elapsed()))
}

fn chosen(only: &[String]) -> Result<Vec<Scenario>> {
    let mut all = scenario::all();
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
        bail!("there is no scenario {unknown}, only {}", names.join(", "));
    }
    all.retain(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name));
    Ok(all)
}

async fn play_all(
    steps: &Arc<Steps>,
    ground: &Arc<Ground>,
    scenarios: Vec<Scenario>,
    rounds: u32,
) -> Result<Vec<Score>> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = JoinSet::new();
    for scenario in scenarios {
        let (steps, ground, places) = (steps.clone(), ground.clone(), places.clone());
        // A thread for each: what stops processes blocks, and must not hold up the others' clocks.
        let handle = Handle::current();
        playing.spawn_blocking(move || {
            handle.block_on(async {
                let _place = places.acquire().await?;
                Ok(play(&steps, &ground, &scenario, rounds).await)
            })
        });
    }
    playing.join_all().await.into_iter().collect()
}

/// Plays all rounds of a scenario and prints its line, and under it why rounds failed.
async fn play(steps: &Steps, ground: &Ground, scenario: &Scenario, rounds: u32) -> Score {
    let started = Instant::now();
    let (mut times, mut failures) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let busy = format!("{}, round {round} of {rounds}", scenario.says);
        match steps.watch(scenario.name, &busy, play_once(ground, scenario, round)).await {
            Ok(took) => times.extend(took),
            Err(error) => failures.push((round, error)),
        }
    }
    let failed = u32::try_from(failures.len()).unwrap_or(u32::MAX);
    let passed = rounds - failed;
    let agent = median(times);
    let said = format!("{passed:>3} passed {failed:>3} failed {agent:>9}   {}", scenario.says);
    steps.ended(failed == 0, scenario.name, started.elapsed(), &said);
    for (round, error) in failures {
        steps.line(&format!("      round {round}: {error:#}"));
    }
    Score { name: scenario.name, passed, failed }
}

/// One round on a stage of its own. What is known of it is kept, also of one that went well: a round
/// that passes where others fail is as much in need of a look.
async fn play_once(ground: &Ground, scenario: &Scenario, round: u32) -> Result<Vec<Duration>> {
    let home = ground.home.join(format!("{}-{round}", scenario.name));
    let mut stage = Stage::set(ground, &scenario.setting, home).await?;
    let outcome = (scenario.play)(&mut stage).await;
    stage.keep_evidence(&outcome).await?;
    let times = stage.clear();
    outcome.map(|()| times)
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort();
    times.get(times.len() / 2).map_or_else(|| "–".to_owned(), |time| seconds(*time))
}

fn verdict(scores: &[Score], took: Duration) -> ExitCode {
    let failed: Vec<&str> =
        scores.iter().filter(|score| score.failed > 0).map(|score| score.name).collect();
    let rounds: u32 = scores.iter().map(|score| score.passed).sum();
    let lost: u32 = scores.iter().map(|score| score.failed).sum();
    let said = if failed.is_empty() {
        "every session ended up as it should".to_owned()
    } else {
        format!("failed: {}; their logs and timelines are in target/chaos", failed.join(", "))
    };
    println!("\n{said}, in {}\n{rounds} rounds passed, {lost} failed", seconds(took));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_scenarios_can_be_chosen() {
        let chosen_of = |names: &[&str]| {
            chosen(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(chosen_of(&["burst", "late-worker"]).unwrap().len(), 2);
        assert_eq!(chosen_of(&[]).unwrap().len(), scenario::all().len());
        let refused = chosen_of(&["late-worker", "brust"]).err().unwrap().to_string();
        assert!(refused.contains("brust") && refused.contains("burst"), "{refused}");
    }
}
