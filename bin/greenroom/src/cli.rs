//! The commands, and what they print.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use greenroom_core::migrate;
use secrecy::ExposeSecret;

use crate::config::{Faults, Settings};
use crate::{openapi, serve};

/// Starts LiveKit sessions: the room, the agent and the token, by one POST.
///
/// Configured by environment variables; .env.example names them all.
#[derive(Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API until SIGTERM or Ctrl-C.
    Serve,
    /// Bring the database's schema up to date. Any number of processes may do so at once.
    Migrate {
        /// Take back the newest N migrations instead.
        #[arg(long, value_name = "N")]
        revert: Option<usize>,
    },
    /// Print the `OpenAPI` document.
    Openapi,
}

/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub async fn run(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Serve => match Settings::from_environment() {
            Ok(settings) => serve::run(settings).await,
            Err(faults) => return refuse(&faults),
        },
        Command::Migrate { revert } => match Settings::database_url() {
            Ok(url) => run_migrations(url.expose_secret(), revert).await,
            Err(faults) => return refuse(&faults),
        },
        Command::Openapi => {
            println!("{}", openapi::document());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greenroom: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(faults: &Faults) -> ExitCode {
    eprintln!("greenroom: {faults}");
    ExitCode::from(2)
}

async fn run_migrations(url: &str, revert: Option<usize>) -> anyhow::Result<()> {
    let (verb, names) = match revert {
        None => ("applied", migrate::run(url).await),
        Some(count) => ("reverted", migrate::revert(url, count).await),
    };
    let names = names.context("the schema is unchanged")?;
    for name in &names {
        println!("{verb}  {name}");
    }
    if names.is_empty() {
        println!("nothing to do: the schema is as it should be");
    }
    Ok(())
}
