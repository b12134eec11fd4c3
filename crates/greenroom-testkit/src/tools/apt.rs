//! Debian's packages, where they can be installed without a question.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{directory, on_path};
use crate::{place, process::Guarded};

/// What `find` finds, installed now from this package when there is none and that takes no question:
/// as root, where there is `apt-get`. Blocks.
pub(super) fn program(
    find: fn() -> Option<PathBuf>,
    package: &str,
    missing: &'static str,
) -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let Some(apt) = on_path("apt-get").filter(|_| place::is_root()) else { bail!(missing) };
    // One process at a time: apt-get holds a lock of its own, and fails instead of waiting for it.
    std::fs::create_dir_all(directory())?;
    let lock = File::create(directory().join("apt-get.lock"))?;
    lock.lock()?;
    if find().is_none() {
        for arguments in
            [&["update"][..], &["install", "--yes", "--no-install-recommends", package]]
        {
            Guarded::new("apt-get", &apt, directory().join("apt-get.log"))
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .run()
                .context(missing)?;
        }
    }
    find().context(missing)
}
