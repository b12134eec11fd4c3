//! Development commands of this repository: `cargo xtask <command>`.

// `println!` and `eprintln!` panic if the reader has closed the pipe. Use `output.rs`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod output;

mod api;
mod bench;
mod chaos;
mod check;
mod checks;
mod components;
mod dev;
mod env;
mod migrate;
mod schema;
mod service;
mod steps;
mod test;
mod tidy;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Development commands of Greenroom's repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run Greenroom with everything it needs and start a session through its API.
    Dev(dev::Arguments),
    /// Run format, tidy, clippy and unit tests, without any server.
    Check,
    /// Run every check and every test on real components.
    Test(test::Arguments),
    /// Inject faults into running sessions and check how the sessions end.
    Chaos(chaos::Arguments),
    /// Measure cost and speed, and fail if a figure misses its threshold.
    Bench(bench::Arguments),
    /// Migrate the schema of `DATABASE_URL`.
    Migrate(migrate::Arguments),
    /// Generate the store's schema.rs from a migrated database.
    Schema(schema::Arguments),
    /// Check repository rules: dependencies, file names, language.
    Tidy,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // reqwest is built without a TLS provider. ring is in the tree already, through livekit-api.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = Runtime::new().map_err(Into::into).and_then(|runtime| {
        let outcome = runtime.block_on(run(command));
        // A blocking child process (an installation, a build) is stopped by its guard on exit.
        runtime.shutdown_background();
        outcome
    });
    outcome.unwrap_or_else(|error| {
        // `eprintln!` would panic if standard error is closed.
        let _ = writeln!(std::io::stderr(), "\n{error:#}");
        ExitCode::FAILURE
    })
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Dev(arguments) => Box::pin(dev::run(arguments, shutdown_signal()?)).await,
        Command::Check => tokio::select! {
            outcome = check::run() => outcome,
            () = shutdown_signal()? => Ok(ExitCode::from(130)),
        },
        Command::Test(arguments) => tokio::select! {
            outcome = test::run(arguments) => outcome,
            () = shutdown_signal()? => Ok(ExitCode::from(130)),
        },
        Command::Chaos(arguments) => tokio::select! {
            outcome = Box::pin(chaos::run(arguments)) => outcome,
            () = shutdown_signal()? => Ok(ExitCode::from(130)),
        },
        Command::Bench(arguments) => tokio::select! {
            outcome = Box::pin(bench::run(arguments)) => outcome,
            () = shutdown_signal()? => Ok(ExitCode::from(130)),
        },
        Command::Migrate(arguments) => migrate::run(arguments).await,
        Command::Schema(arguments) => schema::run(arguments).await,
        Command::Tidy => tidy::run(),
    }
}

/// Completes at Ctrl-C or SIGTERM. From the call on, neither signal ends the process.
fn shutdown_signal() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// clap checks a command only when it is used: here it checks all of them.
    #[test]
    fn definitions_of_all_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
