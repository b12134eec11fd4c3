//! The Python environment of the demo agent and of the user that joins.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{directory, install_once, is_installed, on_path};
use crate::process::Guarded;

const REQUIREMENTS: &str = include_str!("../../python/requirements.txt");

const MISSING: &str =
    "Python 3.10 or later with venv is missing: install python3 (on Debian also python3-venv)";

/// The interpreter of the environment, when it is installed already.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    is_installed(&home(), &stamp()).then(interpreter)
}

/// The interpreter of the environment, which is made now (about a minute) when it is not there.
/// Blocks.
///
/// # Errors
/// When Python is missing or too old, or the packages cannot be fetched.
pub fn environment() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let python = system()?;
    install_once(&home(), &stamp(), |home| {
        let log = home.join("install.log");
        Guarded::new("python-venv", &python, &log)
            .args(["-m", "venv"])
            .args([home])
            .run()
            .context(MISSING)?;
        let requirements = home.join("requirements.txt");
        std::fs::write(&requirements, REQUIREMENTS)?;
        Guarded::new("pip-install", interpreter(), &log)
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
    })?;
    Ok(interpreter())
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

fn home() -> PathBuf {
    directory().join("python")
}

fn interpreter() -> PathBuf {
    home().join("bin/python")
}

fn stamp() -> String {
    // The path is part of it: an environment that was moved or copied no longer works.
    format!("{:x} {}", Sha256::digest(REQUIREMENTS), home().display())
}
