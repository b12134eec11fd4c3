//! `cargo xtask migrate`: a database's schema, up and down.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use greenroom_store::migrate;

use crate::env;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// The database; by default the one of `DATABASE_URL`.
    #[arg(long, global = true)]
    database_url: Option<String>,
}

#[derive(Subcommand)]
enum Action {
    /// Apply what is missing.
    Run,
    /// Take back the last migrations.
    Revert {
        /// How many.
        #[arg(default_value_t = 1)]
        count: usize,
    },
    /// Take back the last migration and apply it again.
    Redo,
    /// Say which migrations the database has.
    Status,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let url = arguments.database_url.or_else(|| env::text("DATABASE_URL"));
    let url = url.context("name the database: set DATABASE_URL, or give --database-url")?;
    match arguments.action {
        Action::Run => say("applied", &migrate::run(&url).await?),
        Action::Revert { count } => say("reverted", &migrate::revert(&url, count).await?),
        Action::Redo => {
            say("reverted", &migrate::revert(&url, 1).await?);
            say("applied", &migrate::run(&url).await?);
        }
        Action::Status => {
            for migration in migrate::status(&url).await? {
                println!(
                    "{:<8} {}",
                    if migration.applied { "applied" } else { "missing" },
                    migration.name
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(what: &str, migrations: &[String]) {
    for migration in migrations {
        println!("{what:<8} {migration}");
    }
    if migrations.is_empty() {
        println!("nothing to do");
    }
}
