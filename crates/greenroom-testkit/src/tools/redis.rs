//! The program `redis-server`: from `PATH`, or from Debian's package.

use std::path::PathBuf;

use anyhow::Result;

use super::{apt, find_unresolved_on_path};

const MISSING: &str = "Redis is missing: install redis-server (on Debian the package redis-server)";

/// Returns this machine's `redis-server`. If it is missing, installs the package, which requires
/// root and `apt-get`. Blocks.
///
/// # Errors
/// Returns an error that names the package if Redis is missing and cannot be installed.
pub fn server() -> Result<PathBuf> {
    // Do not resolve the symbolic link: on Debian it points to `redis-check-rdb`, which runs as a
    // server only if it is called `redis-server`.
    apt::find_or_install(|| find_unresolved_on_path("redis-server"), "redis-server", MISSING)
}
