//! `cargo xtask bench`: cost and speed of starts and of the keeper, on real components.

mod agent;
mod callers;
mod comparison;
mod deadlines;
mod deployment;
mod figure;
mod figures;
mod growth;
mod limits;
mod live;
mod members;
mod memory;
mod names;
mod overload;
mod pages;
mod peers;
mod poisoned;
mod process;
mod raw_http;
mod start_load;
mod starts;
mod statistics;
mod troubles;
mod varied_load;
mod waits;
mod webhook_load;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use greenroom_testkit::paths;
use reqwest::Client;

use self::deployment::BenchEnv;
use self::figure::{Figure, Measurement};
use crate::components::{self, Postgres};
use crate::service;
use crate::steps::{Steps, seconds};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure the keeper: punctuality, CPU, webhooks, held requests.
    Keeper(Keeper),
    /// Compare starts, reads and the idle keeper with many stored sessions and with few.
    Growth(Growth),
    /// Measure starts far above capacity.
    Overload(Scale),
    /// Measure starts: limits, refused requests, memory, token verification, lists, room names.
    Starts(Starts),
    /// Compare Greenroom with a Go and a Python service and with pgbench.
    Peers(Peers),
}

#[derive(Args)]
struct Selection {
    /// Measure only this figure. Can be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

#[derive(Args)]
struct Scale {
    /// Measure on a small scale and with a debug build, as `cargo xtask test` does.
    #[arg(long)]
    quick: bool,
}

#[derive(Args)]
struct Keeper {
    #[command(flatten)]
    selection: Selection,
    /// Measure on a small scale and with a debug build, as `cargo xtask test` does.
    #[arg(long, conflicts_with = "only")]
    quick: bool,
}

#[derive(Args)]
struct Growth {
    /// Number of stored sessions. A million take 0.65 GB of disk and half a minute.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000))]
    rows: u64,
}

#[derive(Args)]
struct Starts {
    #[command(flatten)]
    selection: Selection,
    /// Compare plain starts and webhooks with this greenroom program, built from another revision.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "only")]
    against: Option<PathBuf>,
    /// Number of interleaved rounds of the comparison.
    #[arg(long, requires = "against", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=21))]
    rounds: u32,
}

#[derive(Args)]
struct Peers {
    #[command(flatten)]
    selection: Selection,
    /// Measure fewer cells, each once for a second, to check that the command works.
    #[arg(long)]
    quick: bool,
    /// Number of rounds, in which all targets alternate.
    #[arg(long, conflicts_with = "quick", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=21))]
    rounds: u32,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Plan { figures, against, rounds, rows, is_quick, is_released } = Plan::new(arguments.what)?;
    let started = Instant::now();
    print_line!("Components, all on this machine\n");
    let steps = Steps::new();
    let (postgres, (), program) = tokio::try_join!(
        async {
            // Two builds wait equally long for the disk, and that time varies more than they differ.
            match &against {
                Some(_) => Postgres::for_tests(&steps).await,
                None => Postgres::durable(&steps).await,
            }
        },
        components::python(&steps),
        async {
            if is_released {
                service::build_released(&steps).await
            } else {
                service::build(&steps).await
            }
        }
    )?;
    let home = paths::target_dir().join("bench");
    std::fs::remove_dir_all(&home).ok();
    let database_url = postgres.url.clone();
    let client = Client::new();
    let env =
        BenchEnv { program, against, rounds, rows, is_quick, database_url, home, client, steps };
    print_line!("\nFigures{:>20}{:>14}   threshold\n", "took", "measured");
    let mut failed = Vec::new();
    // One after another, so that each has the machine to itself.
    for figure in figures {
        if !measure(&env, &figure).await {
            failed.push(figure.name);
        }
    }
    Ok(verdict(&failed, started))
}

/// The figures to measure, and their settings.
struct Plan {
    figures: Vec<Figure>,
    against: Option<PathBuf>,
    rounds: u32,
    rows: u64,
    is_quick: bool,
    /// Whether to measure a build with optimizations.
    is_released: bool,
}

impl Plan {
    fn new(what: What) -> Result<Self> {
        let plan = |figures, is_quick| Self {
            figures,
            against: None,
            rounds: 0,
            rows: 0,
            is_quick,
            is_released: !is_quick,
        };
        Ok(match what {
            What::Keeper(Keeper { quick: true, .. }) => plan(figures::keeper_quick(), true),
            What::Keeper(Keeper { selection, .. }) => {
                plan(select(figures::keeper(), &selection.only)?, false)
            }
            What::Growth(Growth { rows }) => Self { rows, ..plan(figures::growth(), false) },
            What::Overload(Scale { quick }) => plan(figures::overload(), quick),
            What::Starts(Starts { against: Some(against), rounds, .. }) => {
                let against = Some(against);
                Self { against, rounds, ..plan(figures::against(), false) }
            }
            What::Peers(Peers { selection, quick, rounds }) => {
                let figures = select(figures::peers(), &selection.only)?;
                Self { rounds, is_released: true, ..plan(figures, quick) }
            }
            What::Starts(Starts { selection, .. }) => {
                plan(select(figures::starts(), &selection.only)?, false)
            }
        })
    }
}

fn select(mut all: Vec<Figure>, only: &[String]) -> Result<Vec<Figure>> {
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        let names: Vec<&str> = all.iter().map(|figure| figure.name).collect();
        bail!("unknown figure {unknown}; the figures are {}", names.join(", "));
    }
    all.retain(|figure| only.is_empty() || only.iter().any(|name| name == figure.name));
    Ok(all)
}

/// Measures a figure, prints its lines, and returns whether it passes its thresholds.
async fn measure(env: &BenchEnv, figure: &Figure) -> bool {
    let steps = &env.steps;
    let started = Instant::now();
    let measured = steps.watch(figure.name, figure.description, (figure.measure)(env)).await;
    let measurements = match measured {
        Ok(measurements) => measurements,
        Err(error) => {
            steps.ended(false, figure.name, started.elapsed(), "failed");
            steps.line(&format!("      {error:#}"));
            return false;
        }
    };
    for (number, measurement) in measurements.iter().enumerate() {
        let line = measurement.to_string();
        match number {
            0 => steps.ended(measurement.passes(), figure.name, started.elapsed(), &line),
            _ => steps.further_result(measurement.passes(), &line),
        }
    }
    measurements.iter().all(Measurement::passes)
}

fn verdict(failed: &[&str], started: Instant) -> ExitCode {
    let took = seconds(started.elapsed());
    if failed.is_empty() {
        print_line!("\nall thresholds passed, in {took}");
        return ExitCode::SUCCESS;
    }
    print_line!("\nfailed: {}, in {took}; see the logs in target/bench", failed.join(", "));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_figures_can_be_selected() {
        let selected = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            select(figures::keeper(), &names)
        };
        assert_eq!(selected(&["waits", "agent"]).unwrap().len(), 2);
        assert_eq!(selected(&[]).unwrap().len(), figures::keeper().len());
        let refused = selected(&["waits", "agents"]).err().unwrap().to_string();
        assert!(refused.contains("agents") && refused.contains("deadlines"), "{refused}");
    }
}
