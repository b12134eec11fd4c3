//! `cargo xtask test`: every check and every test, on real components.

mod contract;

use std::num::NonZero;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::paths;
use greenroom_testkit::pg::Database;
use greenroom_testkit::process::GuardedCommand;
use greenroom_testkit::tools::find_on_path;

use crate::checks::{self, Check, cargo, xtask};
use crate::components::{self, Postgres};
use crate::service::Service;
use crate::steps::Steps;

#[derive(Args)]
pub struct Arguments {
    /// Run only `cargo test` with these arguments: `cargo xtask test -- -p greenroom-store`.
    #[arg(last = true)]
    cargo_test: Vec<String>,
    /// Leave out the chaos scenarios and the benchmarks, which `cargo xtask chaos agents` and
    /// `cargo xtask bench` run alone.
    #[arg(long)]
    without_chaos: bool,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    let steps = Steps::new();
    print_line!("Components\n");
    let (postgres, livekit, ()) = tokio::try_join!(
        Postgres::for_tests(&steps),
        components::livekit(&steps, Vec::new()),
        components::python(&steps)
    )?;
    let demo = Database::fresh_at(postgres.url.clone()).await?;
    // Held while the checks run: dropping it stops the service.
    let service = if arguments.cargo_test.is_empty() {
        components::contract(&steps).await?;
        Some(contract::serve(&steps, demo.url(), &livekit).await?)
    } else {
        None
    };
    let checks = match &service {
        Some(service) => {
            let mut checks = all(&postgres, &livekit, demo.url(), service)?;
            if !arguments.without_chaos {
                checks.push(bench("bench overload", "overload")?);
                checks.push(bench("bench keeper", "keeper")?);
                checks.push(chaos(&postgres)?);
            }
            checks
        }
        None => vec![tests(&postgres, &livekit, &arguments.cargo_test)],
    };
    checks::run_all(&steps, checks, started).await
}

/// All checks, fastest first, so that a failure is reported early.
fn all(
    postgres: &Postgres,
    livekit: &Server,
    demo_database: &str,
    service: &Service,
) -> Result<Vec<Check>> {
    let mut checks = checks::of_sources()?;
    let schema = xtask("schema", &["schema", "--check"])?;
    checks.push(Check::new("schema", schema.env("GREENROOM_TEST_DATABASE_URL", &postgres.url)));
    if find_on_path("cargo-deny").is_some() {
        let deny = ["deny", "check", "bans", "licenses", "sources"];
        checks.push(Check::new("cargo-deny", cargo("cargo-deny", &deny)));
    }
    // With the examples, which need dev-dependencies, rustdoc shares all of Clippy's dependencies.
    let documented =
        ["--workspace", "--all-features", "--no-deps", "--lib", "--bins", "--examples"];
    let rustdoc = cargo("rustdoc", &["doc"]).args(documented);
    checks.push(Check::new("rustdoc", rustdoc.env("RUSTDOCFLAGS", "-D warnings")));
    checks.push(tests(postgres, livekit, &[]));
    checks.push(example("embed example", "embed", &[], livekit, demo_database));
    checks.push(example("axum example", "axum", &["--once"], livekit, demo_database));
    checks.extend(contract::checks(service)?);
    Ok(checks)
}

/// An example of core, configured by the environment as its users do. It runs the program that the
/// check `tests` has built, because `cargo run` would compile the dependencies again with fewer
/// features.
fn example(
    name: &'static str,
    example: &str,
    arguments: &[&str],
    livekit: &Server,
    database_url: &str,
) -> Check {
    let program = paths::target_dir().join("debug/examples").join(example);
    let command = GuardedCommand::new(name, program, checks::log(name))
        .args(arguments)
        .env("DATABASE_URL", database_url)
        .env("LIVEKIT_URL", livekit.url())
        .env("LIVEKIT_API_KEY", livekit.api_key())
        .env("LIVEKIT_API_SECRET", livekit.api_secret());
    Check::new(name, command)
}

/// Number of tests that run at once per core. Most tests wait for LiveKit, agents and timeouts, so the
/// default of one would leave the cores idle.
const TESTS_PER_CORE: usize = 3;

fn tests(postgres: &Postgres, livekit: &Server, arguments: &[String]) -> Check {
    let mut command = cargo("tests", &["test"]);
    if arguments.is_empty() {
        command = command.args(["--workspace", "--all-features", "--no-fail-fast"]);
    }
    let threads = TESTS_PER_CORE * available_parallelism().map_or(1, NonZero::get);
    let command = command.args(arguments).env("RUST_TEST_THREADS", threads.to_string());
    Check::streamed("tests", with_servers(command, postgres, livekit))
}

fn chaos(postgres: &Postgres) -> Result<Check> {
    let chaos = xtask("chaos agents", &["chaos", "agents"])?.env("DATABASE_URL", &postgres.url);
    Ok(Check::streamed("chaos agents", chaos))
}

fn bench(name: &'static str, figures: &str) -> Result<Check> {
    Ok(Check::streamed(name, xtask(name, &["bench", figures, "--quick"])?))
}

fn with_servers(command: GuardedCommand, postgres: &Postgres, livekit: &Server) -> GuardedCommand {
    command
        .env("GREENROOM_TEST_DATABASE_URL", &postgres.url)
        .env("GREENROOM_TEST_LIVEKIT_URL", livekit.url())
        .env("GREENROOM_TEST_LIVEKIT_API_KEY", livekit.api_key())
        .env("GREENROOM_TEST_LIVEKIT_API_SECRET", livekit.api_secret())
}
