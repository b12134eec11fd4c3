//! `cargo xtask bench`: what starts and the keeper cost, and whether they are in time, on the real
//! parts.

mod agent;
mod deadlines;
mod figure;
mod limits;
mod process;
mod stage;
mod starts;
mod told;
mod waits;
mod webhooks;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use greenroom_testkit::place;
use reqwest::Client;

use self::figure::{Figure, Finding};
use self::stage::Ground;
use crate::parts::Postgres;
use crate::steps::{Steps, seconds};
use crate::{parts, service};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What looks after running sessions: in time, and for how much of the machine.
    Keeper(Chosen),
    /// How many sessions start in a second.
    Starts(Starts),
}

#[derive(Args)]
struct Chosen {
    /// Measure this figure only; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

#[derive(Args)]
struct Starts {
    /// Measure plain starts against those of this program, a greenroom built from another revision.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let (figures, against) = match arguments.what {
        What::Keeper(Chosen { only }) => (chosen(figure::of_keeper(), &only)?, None),
        What::Starts(Starts { against }) => (figure::of_starts(), against),
    };
    let started = Instant::now();
    println!("The real parts, side by side on this machine\n");
    let steps = Steps::new();
    let (postgres, (), program) = tokio::try_join!(
        Postgres::durable(&steps),
        parts::python(&steps),
        service::build_released(&steps)
    )?;
    let home = place::target().join("bench");
    std::fs::remove_dir_all(&home).ok();
    let database_url = postgres.url.clone();
    let ground = Ground { program, against, database_url, home, client: Client::new() };
    println!("\nThe figures{:>16}{:>14}   to reach\n", "took", "measured");
    let mut short = Vec::new();
    // One after the other: each has the machine to itself.
    for figure in figures {
        if !measure(&steps, &ground, &figure).await {
            short.push(figure.name);
        }
    }
    Ok(verdict(&short, started))
}

fn chosen(mut all: Vec<Figure>, only: &[String]) -> Result<Vec<Figure>> {
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        let names: Vec<&str> = all.iter().map(|figure| figure.name).collect();
        bail!("there is no figure {unknown}, only {}", names.join(", "));
    }
    all.retain(|figure| only.is_empty() || only.iter().any(|name| name == figure.name));
    Ok(all)
}

/// Measures a figure and prints its lines, and says whether it reaches what it has to.
async fn measure(steps: &Steps, ground: &Ground, figure: &Figure) -> bool {
    let started = Instant::now();
    let measured = steps.watch(figure.name, figure.says, (figure.measure)(ground)).await;
    let findings = match measured {
        Ok(findings) => findings,
        Err(error) => {
            steps.ended(false, figure.name, started.elapsed(), "could not be measured");
            steps.line(&format!("      {error:#}"));
            return false;
        }
    };
    for (number, finding) in findings.iter().enumerate() {
        let said = finding.to_string();
        match number {
            0 => steps.ended(finding.reaches(), figure.name, started.elapsed(), &said),
            _ => steps.also(finding.reaches(), &said),
        }
    }
    findings.iter().all(Finding::reaches)
}

fn verdict(short: &[&str], started: Instant) -> ExitCode {
    let took = seconds(started.elapsed());
    if short.is_empty() {
        println!("\neverything is reached, in {took}");
        return ExitCode::SUCCESS;
    }
    println!("\nshort: {}, in {took}; the logs are in target/bench", short.join(", "));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_figures_can_be_chosen() {
        let chosen_of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(figure::of_keeper(), &names)
        };
        assert_eq!(chosen_of(&["waits", "agent"]).unwrap().len(), 2);
        assert_eq!(chosen_of(&[]).unwrap().len(), figure::of_keeper().len());
        let refused = chosen_of(&["waits", "agents"]).err().unwrap().to_string();
        assert!(refused.contains("agents") && refused.contains("deadlines"), "{refused}");
    }
}
