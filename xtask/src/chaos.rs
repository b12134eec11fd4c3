//! `cargo xtask chaos`: injects faults into running sessions and checks how they end.

mod agents;
mod calls;
mod deployment;
mod outages;
mod replicas;
mod scenario;
mod upgrade;
mod watch;
mod workers;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use greenroom_testkit::paths;
use reqwest::Client;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use self::deployment::{ChaosEnv, Deployment};
use self::scenario::Scenario;
use crate::components::{self, Postgres};
use crate::service;
use crate::steps::{Steps, seconds};

/// Maximum number of scenarios that run concurrently. A scenario mostly waits, so that several can
/// share two cores.
const SCENARIO_CONCURRENCY: usize = 3;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run calls with late, busy, crashing and leaving agents, and with outages of LiveKit.
    Agents(Agents),
    /// Update two replicas of another program to this one during calls, and go back.
    Upgrade(upgrade::Upgrade),
}

#[derive(Args)]
struct Agents {
    /// Number of rounds per scenario. With two or more, `burst` starts more sessions.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Run only this scenario. Can be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// The result of all rounds of a scenario.
struct Score {
    name: &'static str,
    passed: u32,
    failed: u32,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.what {
        What::Agents(agents) => run_scenarios(agents).await,
        // The tasks share one thread, because their futures are not `Send`.
        What::Upgrade(arguments) => {
            LocalSet::new().run_until(Box::pin(upgrade::run(arguments))).await
        }
    }
}

async fn run_scenarios(agents: Agents) -> Result<ExitCode> {
    let scenarios = select(&agents.only)?;
    let started = Instant::now();
    print_line!("Components\n");
    let steps = Arc::new(Steps::new());
    let (postgres, (), program) = tokio::try_join!(
        Postgres::for_tests(&steps),
        components::python(&steps),
        service::build(&steps)
    )?;
    let home = paths::target_dir().join("chaos");
    std::fs::remove_dir_all(&home).ok();
    let env = Arc::new(ChaosEnv {
        program,
        database_url: postgres.url.clone(),
        home,
        client: Client::new(),
        large_bursts: agents.rounds > 1,
    });
    print_line!("\nScenarios{:>18}{:>23}{:>10}\n", "took", "rounds", "agent in");
    let scores = run_all(&steps, &env, scenarios, agents.rounds).await?;
    Ok(verdict(&scores, started.elapsed()))
}

fn select(only: &[String]) -> Result<Vec<Scenario>> {
    let mut all = scenario::all();
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
        bail!("unknown scenario {unknown}; the scenarios are {}", names.join(", "));
    }
    all.retain(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name));
    Ok(all)
}

async fn run_all(
    steps: &Arc<Steps>,
    env: &Arc<ChaosEnv>,
    scenarios: Vec<Scenario>,
    rounds: u32,
) -> Result<Vec<Score>> {
    let permits = Arc::new(Semaphore::new(SCENARIO_CONCURRENCY));
    let mut running = JoinSet::new();
    for scenario in scenarios {
        let (steps, env, permits) = (steps.clone(), env.clone(), permits.clone());
        // Each scenario has its own thread, because stopping a process blocks, and must not delay
        // the timers of the other scenarios.
        let handle = Handle::current();
        running.spawn_blocking(move || {
            handle.block_on(async {
                let _permit = permits.acquire().await?;
                Ok(run_rounds(&steps, &env, &scenario, rounds).await)
            })
        });
    }
    running.join_all().await.into_iter().collect()
}

/// Runs all rounds of a scenario, and prints a line with the result and one line per failed round.
async fn run_rounds(steps: &Steps, env: &ChaosEnv, scenario: &Scenario, rounds: u32) -> Score {
    let started = Instant::now();
    let (mut agent_times, mut failures) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let progress = format!("{}, round {round} of {rounds}", scenario.description);
        match steps.watch(scenario.name, &progress, run_round(env, scenario, round)).await {
            Ok(times) => agent_times.extend(times),
            Err(error) => failures.push((round, error)),
        }
    }
    let failed = u32::try_from(failures.len()).unwrap_or(u32::MAX);
    let passed = rounds - failed;
    let agent_time = median(agent_times);
    let summary =
        format!("{passed:>3} passed {failed:>3} failed {agent_time:>9}   {}", scenario.description);
    steps.ended(failed == 0, scenario.name, started.elapsed(), &summary);
    for (round, error) in failures {
        steps.line(&format!("      round {round}: {error:#}"));
    }
    Score { name: scenario.name, passed, failed }
}

/// Runs one round in its own deployment, and returns the times from starts to agents. Also writes
/// the evidence of a passed round, for comparison with a failed one.
async fn run_round(env: &ChaosEnv, scenario: &Scenario, round: u32) -> Result<Vec<Duration>> {
    let home = env.home.join(format!("{}-{round}", scenario.name));
    let mut deployment = Deployment::start(env, &scenario.setup, home).await?;
    let outcome = (scenario.run)(&mut deployment).await;
    deployment.write_evidence(&outcome).await?;
    let times = deployment.stop();
    outcome.map(|()| times)
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort();
    times.get(times.len() / 2).map_or_else(|| "–".to_owned(), |time| seconds(*time))
}

fn verdict(scores: &[Score], took: Duration) -> ExitCode {
    let failed_names: Vec<&str> =
        scores.iter().filter(|score| score.failed > 0).map(|score| score.name).collect();
    let passed: u32 = scores.iter().map(|score| score.passed).sum();
    let failed: u32 = scores.iter().map(|score| score.failed).sum();
    let took = seconds(took);
    if failed_names.is_empty() {
        print_line!("\nall sessions ended as expected, in {took}");
    } else {
        let names = failed_names.join(", ");
        print_line!("\nfailed: {names}, in {took}; see the logs and timelines in target/chaos");
    }
    print_line!("{passed} rounds passed, {failed} failed");
    if failed_names.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_scenarios_can_be_selected() {
        let selected = |names: &[&str]| {
            select(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(selected(&["burst", "late-worker"]).unwrap().len(), 2);
        assert_eq!(selected(&[]).unwrap().len(), scenario::all().len());
        let refused = selected(&["late-worker", "brust"]).err().unwrap().to_string();
        assert!(refused.contains("brust") && refused.contains("burst"), "{refused}");
    }
}
