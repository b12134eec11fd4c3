//! `cargo xtask migrate`: applies and reverts the migrations of a database.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use greenroom_store::migrate;

use crate::env;

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// URL of the database. Default: `DATABASE_URL`.
    #[arg(long, global = true)]
    database_url: Option<String>,
}

#[derive(Subcommand)]
enum Action {
    /// Apply the missing migrations.
    Run,
    /// Revert the last migrations.
    Revert {
        /// Number of migrations to revert.
        #[arg(default_value_t = 1)]
        count: usize,
    },
    /// Revert the last migration and apply it again.
    Redo,
    /// List all migrations and whether they are applied.
    Status,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let url = arguments.database_url.or_else(|| env::text("DATABASE_URL"));
    let url = url.context("no database is named: set DATABASE_URL or pass --database-url")?;
    match arguments.action {
        Action::Run => print_migrations("applied", &migrate::run(&url).await?),
        Action::Revert { count } => {
            print_migrations("reverted", &migrate::revert(&url, count).await?);
        }
        Action::Redo => {
            print_migrations("reverted", &migrate::revert(&url, 1).await?);
            print_migrations("applied", &migrate::run(&url).await?);
        }
        Action::Status => {
            for migration in migrate::status(&url).await? {
                print_line!(
                    "{:<8} {}",
                    if migration.applied { "applied" } else { "missing" },
                    migration.name
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_migrations(action: &str, migrations: &[String]) {
    for migration in migrations {
        print_line!("{action:<8} {migration}");
    }
    if migrations.is_empty() {
        print_line!("nothing to do");
    }
}
