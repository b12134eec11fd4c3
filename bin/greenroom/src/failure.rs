//! The failure of a command, and its exit code.

use std::process::ExitCode;

use greenroom_core::RevertRefusal;

use crate::config::Faults;
use crate::output::print_error;
use crate::templates::file::FileFaults;

/// Why a command failed.
pub enum Failure {
    /// The configuration is invalid. The command did nothing.
    Configuration(Faults),
    /// The file of templates is invalid. The command did nothing.
    File(FileFaults),
    /// An argument is missing to revert migrations. The command did nothing.
    Revert(RevertRefusal),
    /// Any other failure.
    Other(anyhow::Error),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Configuration(faults)
    }
}

impl From<FileFaults> for Failure {
    fn from(faults: FileFaults) -> Self {
        Self::File(faults)
    }
}

impl From<RevertRefusal> for Failure {
    fn from(refusal: RevertRefusal) -> Self {
        Self::Revert(refusal)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// Prints the failure. Returns 1, or 2 if the usage or the configuration is wrong.
    pub fn print(&self) -> ExitCode {
        match self {
            Self::Configuration(faults) => {
                print_error(format_args!("greenroom: {faults}"));
                ExitCode::from(2)
            }
            Self::File(faults) => {
                // Without a prefix, as compilers do, so that editors can jump to the line.
                print_error(faults);
                ExitCode::from(2)
            }
            Self::Revert(refusal) => {
                print_error(format_args!("greenroom: {refusal}"));
                ExitCode::from(2)
            }
            Self::Other(error) => {
                print_error(format_args!("greenroom: {error:#}"));
                ExitCode::FAILURE
            }
        }
    }
}
