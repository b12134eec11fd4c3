//! Python environments: of the demo agent and the user that joins, and of what checks the contract.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{directory, install_once, is_installed, on_path};
use crate::process::Guarded;

/// An environment of packages in pinned versions, made when it is first wanted.
pub struct Environment {
    name: &'static str,
    requirements: &'static str,
}

/// The demo agent's and the user's: livekit-agents and livekit.
pub const LIVEKIT: Environment =
    Environment { name: "python", requirements: include_str!("../../python/requirements.txt") };

/// What holds a running service against its OpenAPI document.
pub const CONTRACT: Environment = Environment {
    name: "python-contract",
    requirements: include_str!("../../python/contract-requirements.txt"),
};

const MISSING: &str =
    "Python 3.10 or later with venv is missing: install python3 (on Debian also python3-venv)";

impl Environment {
    /// A program of the environment, when it is installed already.
    #[must_use]
    pub fn installed(&self) -> bool {
        is_installed(&self.home(), &self.stamp())
    }

    /// The environment's interpreter, installed now (up to a minute) when it is not there. Blocks.
    ///
    /// # Errors
    /// When Python is missing or too old, or the packages cannot be fetched.
    pub fn interpreter(&self) -> Result<PathBuf> {
        self.program("python")
    }

    /// A program that one of the packages brings. Blocks, as [`Self::interpreter`] does.
    ///
    /// # Errors
    /// As [`Self::interpreter`].
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        if !self.installed() {
            self.install()?;
        }
        Ok(self.home().join("bin").join(name))
    }

    fn install(&self) -> Result<()> {
        let python = system()?;
        install_once(&self.home(), &self.stamp(), |home| {
            let log = home.join("install.log");
            Guarded::new("python-venv", &python, &log)
                .args(["-m", "venv"])
                .args([home])
                .run()
                .context(MISSING)?;
            let requirements = home.join("requirements.txt");
            std::fs::write(&requirements, self.requirements)?;
            Guarded::new("pip-install", home.join("bin/python"), &log)
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--disable-pip-version-check",
                    "--no-input",
                    "--requirement",
                ])
                .args([requirements])
                .run()
                .map(drop)
        })
    }

    fn home(&self) -> PathBuf {
        directory().join(self.name)
    }

    fn stamp(&self) -> String {
        // The path is part of it: an environment that was moved or copied no longer works.
        format!("{:x} {}", Sha256::digest(self.requirements), self.home().display())
    }
}

/// The system's own Python, for what needs no packages.
pub(super) fn system() -> Result<PathBuf> {
    // Not resolved further: a Python behind a version manager's shim is only itself when called by
    // that name.
    let python = Path::new("python3");
    let version = Command::new(python)
        .args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"])
        .status();
    if on_path("python3").is_none() || !version.is_ok_and(|status| status.success()) {
        bail!(MISSING);
    }
    Ok(python.to_owned())
}

/// A program of this crate's `python` directory.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}
