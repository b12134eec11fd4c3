//! The `redis-server` program: the one on PATH.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// This machine's `redis-server`.
///
/// # Errors
/// When there is none; the message names the package.
pub fn server() -> Result<PathBuf> {
    // On Debian a link to `redis-check-rdb`, which is a server only when called by this name.
    super::unresolved_on_path("redis-server")
        .context("Redis is missing: install redis-server (on Debian the package redis-server)")
}
