//! The `livekit-server` program: the one on PATH, or one built with Go.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{directory, install_once, is_installed, on_path};
use crate::process::Guarded;

/// The version everything here was tried with.
const VERSION: &str = "v1.13.5";

const MISSING: &str = "LiveKit is missing: set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET, \
     or put livekit-server on PATH, or install Go to have it built";

/// A `livekit-server` that is there already.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    on_path("livekit-server").or_else(|| is_installed(&home(), VERSION).then(program))
}

/// A `livekit-server`, built now (about a minute and a half) when there is none. Blocks.
///
/// # Errors
/// When there is none and Go is missing or fails; the message names the ways to get one.
pub fn server() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let Some(go) = on_path("go") else { bail!(MISSING) };
    install_once(&home(), VERSION, |home| {
        Guarded::new("go-install", go, home.join("install.log"))
            .args(["install", &format!("github.com/livekit/livekit-server/cmd/server@{VERSION}")])
            .env("GOBIN", home)
            .run()?;
        std::fs::rename(home.join("server"), program())
            .context("go install left no program called server")
    })
    .context(MISSING)?;
    Ok(program())
}

fn home() -> PathBuf {
    directory().join("livekit")
}

fn program() -> PathBuf {
    home().join("livekit-server")
}
