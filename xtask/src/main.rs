//! The chores of this repository: `cargo xtask <command>`.

mod api;
mod bench;
mod chaos;
mod dev;
mod env;
mod migrate;
mod parts;
mod schema;
mod service;
mod steps;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// The chores of Greenroom's repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run Greenroom with everything it needs, and start a first session through its API.
    Dev(dev::Arguments),
    /// Run every check and every test, against real parts.
    Test(test::Arguments),
    /// Make trouble for running sessions, and see what becomes of them.
    Chaos(chaos::Arguments),
    /// Measure what Greenroom costs and how fast it is, and fail where that is not enough.
    Bench(bench::Arguments),
    /// Move a database's schema.
    Migrate(migrate::Arguments),
    /// Generate the store's schema.rs from a migrated database.
    Schema(schema::Arguments),
    /// Hold the crates and the sources against the rules of the house.
    Tidy,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // reqwest comes without cryptography of its own; ring is in the tree already, for LiveKit.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(run(command));
        // What still blocks (an installation, a build) ends with this process, by its guard.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("\n{error:#}");
        ExitCode::FAILURE
    })
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Dev(arguments) => Box::pin(dev::run(arguments, asked_to_stop()?)).await,
        Command::Test(arguments) => tokio::select! {
            outcome = test::run(arguments) => outcome,
            () = asked_to_stop()? => Ok(ExitCode::from(130)),
        },
        Command::Chaos(arguments) => tokio::select! {
            outcome = Box::pin(chaos::run(arguments)) => outcome,
            () = asked_to_stop()? => Ok(ExitCode::from(130)),
        },
        Command::Bench(arguments) => tokio::select! {
            outcome = Box::pin(bench::run(arguments)) => outcome,
            () = asked_to_stop()? => Ok(ExitCode::from(130)),
        },
        Command::Migrate(arguments) => migrate::run(arguments).await,
        Command::Schema(arguments) => schema::run(arguments).await,
        Command::Tidy => tidy::run(),
    }
}

/// Ends at Ctrl-C or SIGTERM, which from now on do nothing else.
fn asked_to_stop() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}
