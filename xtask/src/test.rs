//! `cargo xtask test`: every check and every test, against real parts.

mod contract;
mod counts;

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::place;
use greenroom_testkit::process::Guarded;
use tokio::time::sleep;

use self::counts::Counts;
use crate::parts::Postgres;
use crate::service::Service;
use crate::steps::{Steps, seconds};
use crate::{parts, service};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Arguments {
    /// Run `cargo test` alone, with these arguments: `cargo xtask test -- -p greenroom-store`.
    #[arg(last = true)]
    cargo_test: Vec<String>,
}

/// A command that has to end well.
struct Check {
    name: &'static str,
    command: Guarded,
    /// Shown as it comes, and not only on failure.
    streamed: bool,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    let steps = Steps::new();
    println!("The real parts\n");
    let (postgres, livekit, ()) = tokio::try_join!(
        Postgres::for_tests(&steps),
        parts::livekit(&steps, Vec::new()),
        parts::python(&steps)
    )?;
    let demo = Database::fresh_at(postgres.url.clone()).await?;
    let whole = arguments.cargo_test.is_empty();
    // Held while the checks run: it is stopped when this is dropped.
    let service = if whole {
        parts::contract(&steps).await?;
        Some(contract::serve(&steps, demo.url(), &livekit).await?)
    } else {
        None
    };
    let checks = match &service {
        Some(service) => all(&postgres, &livekit, demo.url(), service)?,
        None => vec![tests(&postgres, &livekit, &arguments.cargo_test)],
    };
    println!("\nThe checks\n");
    let (mut failed, mut counted) = (Vec::new(), Counts::default());
    for check in checks {
        let name = check.name;
        let (passed, tests) = check.run(&steps).await?;
        counted += tests;
        if !passed {
            failed.push(name);
        }
    }
    let verdict = if failed.is_empty() {
        "all is well".to_owned()
    } else {
        format!("failed: {}", failed.join(", "))
    };
    println!(
        "\n{verdict}, in {}\n{} passed, {} failed",
        seconds(started.elapsed()),
        counted.passed,
        counted.failed
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The quick ones first, so that a slip shows early.
fn all(
    postgres: &Postgres,
    livekit: &Server,
    demo_database: &str,
    service: &Service,
) -> Result<Vec<Check>> {
    let ourselves = std::env::current_exe().context("cannot tell where xtask is")?;
    let xtask = |arguments: &[&str], name: &str| {
        let command = Guarded::new(name, &ourselves, log(name)).args(arguments);
        with_parts(command, postgres, livekit)
    };
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    // Against the real parts, by the environment as those do who embed core.
    let example = |name: &'static str, arguments: &[&str]| {
        let run = ["run", "--quiet", "--package", "greenroom-core", "--example"];
        let command = cargo(name, &run).args(arguments);
        let livekit_variables = [
            ("LIVEKIT_URL", livekit.url()),
            ("LIVEKIT_API_KEY", livekit.api_key()),
            ("LIVEKIT_API_SECRET", livekit.api_secret()),
        ];
        let command = command.env("DATABASE_URL", demo_database);
        let with = |command: Guarded, (name, value)| command.env(name, value);
        Check::new(name, livekit_variables.into_iter().fold(command, with))
    };
    let mut checks = vec![
        Check::new("format", cargo("format", &["fmt", "--all", "--check"])),
        Check::new("tidy", xtask(&["tidy"], "tidy")),
        Check::new("schema", xtask(&["schema", "--check"], "schema")),
        Check::new("clippy", cargo("clippy", &clippy)),
        Check::new(
            "rustdoc",
            cargo("rustdoc", &["doc", "--workspace", "--all-features", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        ),
        tests(postgres, livekit, &[]),
        example("embed example", &["embed"]),
        example("axum example", &["axum", "--", "--once"]),
    ];
    checks.extend(contract::checks(service)?);
    let chaos = xtask(&["chaos", "agents"], "chaos agents").env("DATABASE_URL", &postgres.url);
    checks.push(Check { name: "chaos agents", command: chaos, streamed: true });
    Ok(checks)
}

fn tests(postgres: &Postgres, livekit: &Server, arguments: &[String]) -> Check {
    let mut command = cargo("tests", &["test"]);
    if arguments.is_empty() {
        command = command.args(["--workspace", "--all-features", "--no-fail-fast"]);
    }
    let command = with_parts(command.args(arguments), postgres, livekit);
    Check { name: "tests", command, streamed: true }
}

fn cargo(name: &str, arguments: &[&str]) -> Guarded {
    let color = if stdout().is_terminal() { "always" } else { "never" };
    service::cargo(name, log(name)).args(arguments).env("CARGO_TERM_COLOR", color)
}

fn with_parts(command: Guarded, postgres: &Postgres, livekit: &Server) -> Guarded {
    command
        .env("GREENROOM_TEST_DATABASE_URL", &postgres.url)
        .env("GREENROOM_TEST_LIVEKIT_URL", livekit.url())
        .env("GREENROOM_TEST_LIVEKIT_API_KEY", livekit.api_key())
        .env("GREENROOM_TEST_LIVEKIT_API_SECRET", livekit.api_secret())
}

fn log(name: &str) -> PathBuf {
    let log = place::target().join("test").join(name.replace(' ', "-")).with_extension("log");
    std::fs::remove_file(&log).ok();
    log
}

impl Check {
    fn new(name: &'static str, command: Guarded) -> Self {
        Self { name, command, streamed: false }
    }

    /// Runs it to its end and tells how it went; the output of one that failed is shown whole.
    async fn run(self, steps: &Steps) -> Result<(bool, Counts)> {
        let started = Instant::now();
        let (passed, output) = if self.streamed {
            println!();
            let ended = to_its_end(self.command, |news| print!("{news}")).await?;
            println!();
            ended
        } else {
            steps.watch(self.name, "running", to_its_end(self.command, |_| ())).await?
        };
        steps.ended(passed, self.name, started.elapsed(), if passed { "" } else { "failed" });
        if !passed && !self.streamed {
            println!("\n{}\n", output.trim_end());
        }
        Ok((passed, if self.streamed { Counts::of(&output) } else { Counts::default() }))
    }
}

/// Runs a command, hands on its output line by line as it comes, and returns whether it succeeded
/// and the whole.
async fn to_its_end(command: Guarded, mut show: impl FnMut(&str)) -> Result<(bool, String)> {
    let mut process = command.start()?;
    let mut shown = 0;
    loop {
        let ended = process.has_ended();
        let output = process.output();
        // Whole lines only: of the last one a part may be missing.
        let whole = output.rfind('\n').map_or(0, |newline| newline + 1);
        show(&output[shown..whole]);
        shown = whole;
        if ended {
            return Ok((process.succeeded(), output));
        }
        sleep(BETWEEN_LOOKS).await;
    }
}
