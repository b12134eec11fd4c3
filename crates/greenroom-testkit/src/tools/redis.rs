//! The `redis-server` program: the one on PATH, or Debian's package.

use std::path::PathBuf;

use anyhow::Result;

use super::{apt, unresolved_on_path};

const MISSING: &str = "Redis is missing: install redis-server (on Debian the package redis-server)";

/// This machine's `redis-server`, installed now when there is none and that takes no question: as
/// root, where there is `apt-get`. Blocks.
///
/// # Errors
/// When there is none; the message names the package.
pub fn server() -> Result<PathBuf> {
    // On Debian a link to `redis-check-rdb`, which is a server only when called by this name.
    apt::program(|| unresolved_on_path("redis-server"), "redis-server", MISSING)
}
