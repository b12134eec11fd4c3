//! `cargo xtask migrate`: applies and reverts the migrations of a database.

use std::io::{IsTerminal, stdin};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use greenroom_store::{Reversal, RevertConsent, RevertPermission, migrate, revert};

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
        #[command(flatten)]
        consent: Consent,
    },
    /// Revert the last migration and apply it again.
    Redo {
        #[command(flatten)]
        consent: Consent,
    },
    /// List all migrations and whether they are applied.
    Status,
}

#[derive(Args)]
struct Consent {
    /// Revert without asking for a confirmation.
    #[arg(long)]
    yes: bool,
    /// Revert even if that loses the rows of a table or the values of a column.
    #[arg(long)]
    force: bool,
}

pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let url = arguments.database_url.or_else(|| env::text("DATABASE_URL"));
    let url = url.context("no database is named: set DATABASE_URL or pass --database-url")?;
    match arguments.action {
        Action::Run => print_migrations("applied", &migrate::run(&url).await?),
        Action::Revert { count, consent } => revert_migrations(&url, count, &consent).await?,
        Action::Redo { consent } => {
            revert_migrations(&url, 1, &consent).await?;
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

/// Shows the migrations and the data that would be lost, asks for a confirmation, and reverts.
async fn revert_migrations(url: &str, count: usize, consent: &Consent) -> Result<()> {
    let plan = revert::plan(url, count).await?;
    for Reversal { migration, losses, .. } in &plan {
        print_line!("to revert {migration}");
        for loss in losses {
            print_line!("  loses {loss}");
        }
    }
    let consent = RevertConsent { yes: consent.yes, force: consent.force };
    if !plan.is_empty() && consent.check(&plan, stdin().is_terminal())? == RevertPermission::Ask {
        print_line!("Revert these migrations? Type yes:");
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        ensure!(answer.trim() == "yes", "nothing was reverted");
    }
    print_migrations("reverted", &migrate::revert(url, plan.len()).await?);
    Ok(())
}

fn print_migrations(action: &str, migrations: &[String]) {
    for migration in migrations {
        print_line!("{action:<8} {migration}");
    }
    if migrations.is_empty() {
        print_line!("nothing to do");
    }
}
