//! `greenroom templates`: applies a template file to an organization, or exports one.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use greenroom_core::domain::OrganizationId;
use greenroom_core::{Admin, Caller, Error, TemplateSet};

use super::file::TemplateFile;
use super::{difference, file};
use crate::failure::Failure;
use crate::output::{print, print_line};

#[derive(Subcommand)]
pub enum Command {
    /// Set an organization's templates from a file, in one transaction.
    Apply {
        /// A TOML file of `[[template]]` tables with the fields of the API. An absent field has its
        /// default value. The name identifies a template, ignoring case.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The organization.
        #[arg(long, value_name = "UUID")]
        org: OrganizationId,
        /// Print the changes without writing them.
        #[arg(long)]
        dry_run: bool,
        /// Archive the templates that the file does not contain.
        #[arg(long)]
        prune: bool,
    },
    /// Write an organization's templates to a file that `apply` accepts.
    Export {
        /// The file to write. If it is omitted, the templates go to the standard output.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// The organization.
        #[arg(long, value_name = "UUID")]
        org: OrganizationId,
    },
}

impl Command {
    pub async fn run(self, admin: &Admin) -> Result<(), Failure> {
        match self {
            Self::Apply { file, org, dry_run, prune } => {
                apply(admin, &Caller::backend(org), &TemplateFile::read(&file)?, dry_run, prune)
                    .await
            }
            Self::Export { file, org } => {
                Ok(export(admin, &Caller::backend(org), file.as_deref()).await?)
            }
        }
    }
}

async fn apply(
    admin: &Admin,
    caller: &Caller,
    file: &TemplateFile,
    dry_run: bool,
    prune: bool,
) -> Result<(), Failure> {
    let templates: Vec<_> = file.settings().cloned().collect();
    // An empty file is probably truncated. To archive every template on purpose, archive them one
    // by one through the API.
    if prune && templates.is_empty() {
        let fault = "contains no templates, so --prune would archive all existing ones; \
                     check the file, or omit --prune";
        return Err(file.fault(fault).into());
    }
    let set = TemplateSet::new(templates, prune);
    let changes = if dry_run {
        admin.compare_templates(caller, set).await
    } else {
        admin.apply_templates(caller, set).await
    };
    let changes = changes.map_err(|error| match error {
        Error::TemplateNameTaken(name) => {
            let fault = format!(
                "name {:?} is already taken; use names that are unique, ignoring case",
                name.as_str()
            );
            Failure::from(file.fault_of(&name, fault))
        }
        error => Failure::from(anyhow::Error::from(error).context("the templates are unchanged")),
    })?;
    Ok(print(&difference::describe(&changes, dry_run))?)
}

async fn export(admin: &Admin, caller: &Caller, file: Option<&Path>) -> anyhow::Result<()> {
    let templates = admin.current_templates(caller).await?;
    let count = templates.len();
    let text = file::format(templates);
    match file {
        None => print(&text),
        Some(file) => {
            let path = file.display();
            std::fs::write(file, text).with_context(|| format!("failed to write {path}"))?;
            print_line(format_args!("templates written to {path}: {count}"))
        }
    }
}
