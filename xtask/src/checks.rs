//! Checks: commands that must succeed, run one after another and summarized in one line each.

mod counts;

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use greenroom_testkit::paths;
use greenroom_testkit::process::GuardedCommand;
use tokio::time::sleep;

use self::counts::Counts;
use crate::steps::{Steps, seconds};
use crate::{output, service};

/// How often the output of a running command is read.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A command that must succeed.
pub struct Check {
    name: &'static str,
    command: GuardedCommand,
    /// Whether its output is shown as it is written, and not only after a failure.
    is_streamed: bool,
}

impl Check {
    pub fn new(name: &'static str, command: GuardedCommand) -> Self {
        Self { name, command, is_streamed: false }
    }

    /// A check that takes minutes: its output is shown as it is written, and its tests are counted.
    pub fn streamed(name: &'static str, command: GuardedCommand) -> Self {
        Self { name, command, is_streamed: true }
    }

    /// Runs the command and returns whether it succeeded, and its tests. Prints the whole output
    /// after a failure.
    async fn run(self, steps: &Steps) -> Result<(bool, Counts)> {
        let started = Instant::now();
        let (passed, output) = if self.is_streamed {
            output::print("\n");
            let finished = run_to_end(self.command, output::print).await?;
            output::print("\n");
            finished
        } else {
            steps.watch(self.name, "running", run_to_end(self.command, |_| ())).await?
        };
        steps.ended(passed, self.name, started.elapsed(), if passed { "" } else { "failed" });
        if !passed && !self.is_streamed {
            print_line!("\n{}\n", output.trim_end());
        }
        Ok((passed, Counts::of(&output)))
    }
}

/// Runs all checks, also after a failure, and prints a summary.
pub async fn run_all(steps: &Steps, checks: Vec<Check>, started: Instant) -> Result<ExitCode> {
    print_line!("\nChecks\n");
    let (mut failed, mut counted) = (Vec::new(), Counts::default());
    for check in checks {
        let name = check.name;
        let (passed, tests) = check.run(steps).await?;
        counted += tests;
        if !passed {
            failed.push(name);
        }
    }
    let verdict = if failed.is_empty() {
        "all checks passed".to_owned()
    } else {
        format!("failed: {}", failed.join(", "))
    };
    print_line!(
        "\n{verdict}, in {}\n{} passed, {} failed",
        seconds(started.elapsed()),
        counted.passed,
        counted.failed
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The checks of the sources, quickest first.
pub fn of_sources() -> Result<Vec<Check>> {
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    Ok(vec![
        Check::new("format", cargo("format", &["fmt", "--all", "--check"])),
        Check::new("tidy", xtask("tidy", &["tidy"])?),
        Check::new("clippy", cargo("clippy", &clippy)),
    ])
}

/// `cargo` with these arguments, in the root of the repository.
pub fn cargo(name: &str, arguments: &[&str]) -> GuardedCommand {
    let color = if stdout().is_terminal() { "always" } else { "never" };
    service::cargo(name, log(name)).args(arguments).env("CARGO_TERM_COLOR", color)
}

/// This program with other arguments.
pub fn xtask(name: &str, arguments: &[&str]) -> Result<GuardedCommand> {
    let program = std::env::current_exe().context("failed to find the xtask program")?;
    Ok(GuardedCommand::new(name, program, log(name)).args(arguments))
}

/// A fresh log file of a check.
pub fn log(name: &str) -> PathBuf {
    let log = paths::target_dir().join("test").join(name.replace(' ', "-")).with_extension("log");
    std::fs::remove_file(&log).ok();
    log
}

/// Runs a command and passes its output on line by line. Returns whether it succeeded, and its
/// whole output.
async fn run_to_end(command: GuardedCommand, mut show: impl FnMut(&str)) -> Result<(bool, String)> {
    let mut process = command.start()?;
    let mut shown = 0;
    loop {
        let has_ended = process.has_exited();
        let output = process.output();
        // Whole lines only: the last line may be incomplete.
        let whole = output.rfind('\n').map_or(0, |newline| newline + 1);
        show(&output[shown..whole]);
        shown = whole;
        if has_ended {
            return Ok((process.succeeded(), output));
        }
        sleep(POLL_INTERVAL).await;
    }
}
