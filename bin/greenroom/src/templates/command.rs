//! `greenroom templates`: an organization's templates from a file, and into one.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use greenroom_core::domain::OrganizationId;
use greenroom_core::{Error, TemplateSet, apply_templates, compare_templates, current_templates};

use super::difference;
use super::file::{self, TemplateFile};
use crate::cli::Failure;

#[derive(Subcommand)]
pub enum Command {
    /// Make an organization's templates what a file says: all of it, or nothing.
    Apply {
        /// A TOML file of `[[template]]` tables with the fields of the API; what is absent is the
        /// default. Templates are known by their names, without regard to case.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The organization.
        #[arg(long, value_name = "UUID")]
        org: OrganizationId,
        /// Say what would change, and write nothing.
        #[arg(long)]
        dry_run: bool,
        /// Archive the templates that the file does not name.
        #[arg(long)]
        prune: bool,
    },
    /// Write an organization's templates as such a file.
    Export {
        /// Where to; else to the standard output.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The organization.
        #[arg(long, value_name = "UUID")]
        org: OrganizationId,
    },
}

impl Command {
    pub async fn run(self, database_url: &str) -> Result<(), Failure> {
        match self {
            Self::Apply { file, org, dry_run, prune } => {
                apply(database_url, org, &TemplateFile::read(&file)?, dry_run, prune).await
            }
            Self::Export { file, org } => Ok(export(database_url, org, file.as_deref()).await?),
        }
    }
}

async fn apply(
    database_url: &str,
    organization: OrganizationId,
    file: &TemplateFile,
    dry_run: bool,
    prune: bool,
) -> Result<(), Failure> {
    let templates: Vec<_> = file.settings().cloned().collect();
    // As likely a file that was cut off: whoever wants this can archive them one by one.
    if prune && templates.is_empty() {
        return Err(file.fault("names no template, so --prune would archive them all").into());
    }
    let set = TemplateSet { templates, prune };
    let changes = if dry_run {
        compare_templates(database_url, organization, set).await
    } else {
        apply_templates(database_url, organization, set).await
    };
    let changes = changes.map_err(|error| match error {
        Error::TemplateNameTaken(name) => {
            let fault = "name must be unique without regard to case, and is taken";
            Failure::from(file.fault_of(&name, fault.to_owned()))
        }
        error => Failure::from(anyhow::Error::from(error).context("the templates are unchanged")),
    })?;
    let told = difference::told(&changes, dry_run);
    // Colours on a terminal, and plain elsewhere.
    anstream::stdout().write_all(told.as_bytes()).context("what was done cannot be shown")?;
    Ok(())
}

async fn export(
    database_url: &str,
    organization: OrganizationId,
    file: Option<&Path>,
) -> anyhow::Result<()> {
    let templates = current_templates(database_url, organization).await?;
    let count = templates.len();
    let text = file::write(templates);
    match file {
        None => std::io::stdout().write_all(text.as_bytes()).context("they cannot be written")?,
        Some(file) => {
            let shown = file.display();
            std::fs::write(file, text).with_context(|| format!("{shown} cannot be written"))?;
            println!("written to {shown}: {count}");
        }
    }
    Ok(())
}
