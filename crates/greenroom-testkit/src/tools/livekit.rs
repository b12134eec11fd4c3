//! The program `livekit-server`: from `PATH`, or built with Go.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{find_on_path, install_once, is_installed, tools_dir};
use crate::process::GuardedCommand;

/// The version with which the tests were developed, and which is built with Go.
const VERSION: &str = "v1.13.5";

const MISSING: &str = "LiveKit is missing: set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET, \
     or put livekit-server on PATH, or install Go to have it built";

/// Returns `livekit-server` from `PATH` or from an earlier build. `None` means that it must be
/// built.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    find_on_path("livekit-server").or_else(|| is_installed(&directory(), VERSION).then(program))
}

/// Returns `livekit-server`. If it is missing, builds it with Go, which takes about a minute and a
/// half. Blocks.
///
/// # Errors
/// Returns an error that names the ways to install LiveKit if it is missing and cannot be built.
pub fn server() -> Result<PathBuf> {
    if let Some(program) = installed() {
        return Ok(program);
    }
    let Some(go) = find_on_path("go") else { bail!(MISSING) };
    install_once(&directory(), VERSION, |directory| {
        GuardedCommand::new("go-install", go, directory.join("install.log"))
            .args(["install", &format!("github.com/livekit/livekit-server/cmd/server@{VERSION}")])
            .env("GOBIN", directory)
            .run()?;
        std::fs::rename(directory.join("server"), program())
            .context("go install created no program named server")
    })
    .context(MISSING)?;
    Ok(program())
}

fn directory() -> PathBuf {
    tools_dir().join("livekit")
}

fn program() -> PathBuf {
    directory().join("livekit-server")
}
