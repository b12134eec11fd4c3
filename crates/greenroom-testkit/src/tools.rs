//! Finds the external programs on this machine, or installs them into `target/tools`.

mod apt;
pub mod browser;
pub mod livekit;
pub mod livekit_client;
pub mod postgres;
pub mod python;
pub mod redis;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{env, paths};

/// File in a tool's directory that contains the stamp of the installation.
const STAMP_FILE: &str = ".installed";

/// Returns the directory of the installed tools.
#[must_use]
pub fn tools_dir() -> PathBuf {
    paths::target_dir().join("tools")
}

/// Returns the program with this name on `PATH`. Symbolic links are resolved, so that the parent
/// directory contains the related programs.
#[must_use]
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    find_unresolved_on_path(program)?.canonicalize().ok()
}

/// Returns the program with this name on `PATH` without resolving symbolic links, because some
/// programs behave differently if they are called by another name.
fn find_unresolved_on_path(program: &str) -> Option<PathBuf> {
    env::search_path()
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|file| is_program(file))
}

/// Installs a tool into `directory` unless it is already there. A file lock makes other processes
/// wait meanwhile.
///
/// `stamp` identifies the exact version. It is written last, so that an incomplete installation is
/// never used.
///
/// # Errors
/// Returns an error if `install` fails. The next attempt removes the incomplete installation.
pub fn install_once(
    directory: &Path,
    stamp: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if is_installed(directory, stamp) {
        return Ok(());
    }
    let parent = directory.parent().context("the directory of a tool has no parent")?;
    std::fs::create_dir_all(parent)
        .with_context(|| format!("failed to create {}", parent.display()))?;
    let lock = File::create(directory.with_extension("lock"))?;
    lock.lock().with_context(|| format!("failed to lock {}", directory.display()))?;
    if is_installed(directory, stamp) {
        return Ok(());
    }
    if directory.exists() {
        std::fs::remove_dir_all(directory)
            .with_context(|| format!("failed to remove {}", directory.display()))?;
    }
    std::fs::create_dir_all(directory)?;
    install(directory)?;
    std::fs::write(directory.join(STAMP_FILE), stamp)?;
    Ok(())
}

/// Whether `directory` contains a complete installation with this stamp.
#[must_use]
pub fn is_installed(directory: &Path, stamp: &str) -> bool {
    std::fs::read_to_string(directory.join(STAMP_FILE)).is_ok_and(|found| found == stamp)
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn incomplete_installation_is_repeated_and_complete_installation_is_not() {
        let directory = paths::create_temp_dir("install", None).unwrap().join("tool");
        install_once(&directory, "1", |directory| {
            std::fs::write(directory.join("incomplete"), "").unwrap();
            bail!("interrupted")
        })
        .unwrap_err();
        install_once(&directory, "1", |directory| {
            assert!(!directory.join("incomplete").exists());
            Ok(())
        })
        .unwrap();
        install_once(&directory, "1", |_| bail!("installed a second time")).unwrap();
        install_once(&directory, "2", |_| Ok(())).unwrap();
        std::fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    }
}
