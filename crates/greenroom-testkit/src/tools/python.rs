//! Python environments with pinned packages: for agents and users, the contract test and others.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{find_on_path, install_once, is_installed, tools_dir};
use crate::process::GuardedCommand;

/// A virtual environment with pinned packages, which is installed when it is first used.
pub struct Environment {
    name: &'static str,
    requirements: &'static str,
}

/// The environment of the agents and users: livekit-agents and livekit.
pub const LIVEKIT: Environment =
    Environment::new("python", include_str!("../../python/requirements.txt"));

/// The environment of the contract test, which checks a running service against its OpenAPI
/// document.
pub const CONTRACT: Environment =
    Environment::new("python-contract", include_str!("../../python/contract-requirements.txt"));

const MISSING: &str =
    "Python 3.10 or later with venv is missing: install python3 (on Debian also python3-venv)";

impl Environment {
    /// Describes the environment `target/tools/{name}` with the packages of a requirements file.
    #[must_use]
    pub const fn new(name: &'static str, requirements: &'static str) -> Self {
        Self { name, requirements }
    }

    /// Whether the environment is already installed.
    #[must_use]
    pub fn installed(&self) -> bool {
        is_installed(&self.directory(), &self.stamp())
    }

    /// Returns the environment's Python interpreter. If the environment is missing, installs it,
    /// which takes up to a minute. Blocks.
    ///
    /// # Errors
    /// Returns an error if Python is missing or too old, or if the packages cannot be downloaded.
    pub fn interpreter(&self) -> Result<PathBuf> {
        self.program("python")
    }

    /// Returns a program that one of the packages contains. Installs the environment and blocks as
    /// [`Self::interpreter`] does.
    ///
    /// # Errors
    /// Returns the errors of [`Self::interpreter`].
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        if !self.installed() {
            self.install()?;
        }
        Ok(self.directory().join("bin").join(name))
    }

    fn install(&self) -> Result<()> {
        let python = system_python()?;
        install_once(&self.directory(), &self.stamp(), |directory| {
            let log = directory.join("install.log");
            GuardedCommand::new("python-venv", &python, &log)
                .args(["-m", "venv"])
                .args([directory])
                .run()
                .context(MISSING)?;
            let requirements = directory.join("requirements.txt");
            std::fs::write(&requirements, self.requirements)?;
            GuardedCommand::new("pip-install", directory.join("bin/python"), &log)
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

    fn directory(&self) -> PathBuf {
        tools_dir().join(self.name)
    }

    fn stamp(&self) -> String {
        // The stamp contains the path, because a virtual environment that was moved or copied does
        // not work.
        format!("{:x} {}", Sha256::digest(self.requirements), self.directory().display())
    }
}

/// Returns the system's Python interpreter, for programs that need no packages.
pub(super) fn system_python() -> Result<PathBuf> {
    // Return the plain name: the Python of a version manager works only if its shim is called by
    // this name.
    let python = Path::new("python3");
    let version = Command::new(python)
        .args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"])
        .status();
    if find_on_path("python3").is_none() || !version.is_ok_and(|status| status.success()) {
        bail!(MISSING);
    }
    Ok(python.to_owned())
}

/// Returns the path of a file in this crate's `python` directory.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}
