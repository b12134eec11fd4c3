//! The `redis-server` program: the one on PATH, or Debian's package.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{directory, on_path, unresolved_on_path};
use crate::{place, process::Guarded};

const MISSING: &str = "Redis is missing: install redis-server (on Debian the package redis-server)";

/// This machine's `redis-server`, installed now when there is none and that takes no question: as
/// root, where there is `apt-get`. Blocks.
///
/// # Errors
/// When there is none; the message names the package.
pub fn server() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let Some(apt) = on_path("apt-get").filter(|_| place::is_root()) else { bail!(MISSING) };
    // One process at a time: apt-get holds a lock of its own, and fails instead of waiting for it.
    std::fs::create_dir_all(directory())?;
    let lock = File::create(directory().join("redis.lock"))?;
    lock.lock()?;
    if installed().is_none() {
        for arguments in
            [&["update"][..], &["install", "--yes", "--no-install-recommends", "redis-server"]]
        {
            Guarded::new("apt-get", &apt, directory().join("redis-install.log"))
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .run()
                .context(MISSING)?;
        }
    }
    installed().context(MISSING)
}

fn installed() -> Option<PathBuf> {
    // On Debian a link to `redis-check-rdb`, which is a server only when called by this name.
    unresolved_on_path("redis-server")
}
