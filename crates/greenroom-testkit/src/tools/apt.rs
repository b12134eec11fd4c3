//! Installs Debian packages, if this is possible without a question.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{find_on_path, tools_dir};
use crate::process::GuardedCommand;
use crate::unix_user;

/// Returns the program that `find` finds. If it is missing, first installs `package`, which
/// requires root and `apt-get`; otherwise fails with the message `missing`. Blocks.
pub(super) fn find_or_install(
    find: fn() -> Option<PathBuf>,
    package: &str,
    missing: &'static str,
) -> Result<PathBuf> {
    if let Some(program) = find() {
        return Ok(program);
    }
    let Some(apt) = find_on_path("apt-get").filter(|_| unix_user::is_root()) else {
        bail!(missing)
    };
    // Use a lock, because a second `apt-get` fails instead of waiting for the first.
    std::fs::create_dir_all(tools_dir())?;
    let lock = File::create(tools_dir().join("apt-get.lock"))?;
    lock.lock()?;
    if find().is_none() {
        for arguments in
            [&["update"][..], &["install", "--yes", "--no-install-recommends", package]]
        {
            GuardedCommand::new("apt-get", &apt, tools_dir().join("apt-get.log"))
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .run()
                .context(missing)?;
        }
    }
    find().context(missing)
}
