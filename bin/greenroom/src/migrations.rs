//! `greenroom migrate`: applies the migrations, or reverts some after a confirmation.

use std::io::{BufRead, IsTerminal, stdin};
use std::num::NonZeroUsize;

use anyhow::Context;
use clap::Args;
use greenroom_core::{Admin, Reversal, RevertConsent, RevertPermission};

use crate::failure::Failure;
use crate::output::{print_error, print_line};

#[derive(Args)]
pub struct Arguments {
    /// Revert the newest N migrations instead, after a confirmation.
    #[arg(long, value_name = "N")]
    revert: Option<NonZeroUsize>,
    /// Revert without asking for a confirmation.
    #[arg(long, requires = "revert")]
    yes: bool,
    /// Revert even if that loses the rows of a table or the values of a column.
    #[arg(long, requires = "revert")]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns [`Failure::Revert`] if the revert lacks `--yes` or `--force`, and [`Failure::Other`] if the
/// operator declines it or the database fails.
pub async fn run(admin: &Admin, arguments: &Arguments) -> Result<(), Failure> {
    let Some(count) = arguments.revert else {
        let applied = admin.migrate().await.context("failed to migrate the schema")?;
        return Ok(print_names("applied", &applied, "the schema is up to date")?);
    };
    let plan = admin.plan_revert(count.get()).await.context("failed to read the migrations")?;
    if !plan.is_empty() {
        print_plan(&plan);
        let consent = RevertConsent { yes: arguments.yes, force: arguments.force };
        let permission = consent.check(&plan, stdin().is_terminal())?;
        if permission == RevertPermission::Ask && !is_confirmed(&mut stdin().lock())? {
            return Err(anyhow::anyhow!("nothing was reverted").into());
        }
    }
    let reverted = admin.revert_migrations(plan.len()).await;
    let reverted = reverted.context("failed to migrate the schema")?;
    Ok(print_names("reverted", &reverted, "no migration is applied")?)
}

/// Prints the plan to standard error, which is the terminal if the output is redirected.
fn print_plan(plan: &[Reversal]) {
    for Reversal { migration, losses, .. } in plan {
        print_error(format_args!("to revert  {migration}"));
        for loss in losses {
            print_error(format_args!("             loses {loss}"));
        }
    }
}

/// Asks for a confirmation. An empty line and the end of the input decline.
fn is_confirmed(answers: &mut impl BufRead) -> anyhow::Result<bool> {
    print_error("Revert these migrations? Type yes:");
    let mut answer = String::new();
    answers.read_line(&mut answer).context("failed to read the answer")?;
    Ok(answer.trim() == "yes")
}

fn print_names(verb: &str, names: &[String], if_none: &str) -> anyhow::Result<()> {
    for name in names {
        print_line(format_args!("{verb}  {name}"))?;
    }
    if names.is_empty() {
        print_line(format_args!("nothing to do: {if_none}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_confirms() {
        for (answer, expected) in
            [("yes\n", true), (" yes \n", true), ("y\n", false), ("\n", false), ("", false)]
        {
            assert_eq!(is_confirmed(&mut answer.as_bytes()).unwrap(), expected, "{answer:?}");
        }
    }
}
