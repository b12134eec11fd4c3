//! Finding the real parts on this machine, or fetching them into `target/tools`.

mod apt;
pub mod browser;
pub mod livekit;
pub mod livekit_client;
pub mod postgres;
pub mod python;
pub mod redis;

use std::{
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{env, place};

/// Where fetched tools live.
#[must_use]
pub fn directory() -> PathBuf {
    place::target().join("tools")
}

/// The program of this name on PATH, with symbolic links resolved: its neighbours are beside the
/// real file.
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    unresolved_on_path(program)?.canonicalize().ok()
}

/// The same as it is called on PATH, for what behaves by the name it is called by.
fn unresolved_on_path(program: &str) -> Option<PathBuf> {
    env::search_path()
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|file| is_program(file))
}

/// Installs a tool once, however many processes want it at the same time.
///
/// `stamp` says what exactly is installed in `home`; it is written last, so a half installation is
/// never taken for one.
///
/// # Errors
/// When `install` fails; whatever it left is removed at the next attempt.
pub fn install_once(
    home: &Path,
    stamp: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if is_installed(home, stamp) {
        return Ok(());
    }
    let parent = home.parent().context("a tool is installed below some directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let lock = File::create(home.with_extension("lock"))?;
    lock.lock().with_context(|| format!("cannot lock {}", home.display()))?;
    if is_installed(home, stamp) {
        return Ok(());
    }
    if home.exists() {
        std::fs::remove_dir_all(home)
            .with_context(|| format!("cannot clear {}", home.display()))?;
    }
    std::fs::create_dir_all(home)?;
    install(home)?;
    std::fs::write(home.join(STAMP), stamp)?;
    Ok(())
}

/// Whether exactly this is installed in `home`.
#[must_use]
pub fn is_installed(home: &Path, stamp: &str) -> bool {
    std::fs::read_to_string(home.join(STAMP)).is_ok_and(|found| found == stamp)
}

const STAMP: &str = ".installed";

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_half_installation_is_made_again_and_a_whole_one_is_not() {
        let home = place::temporary("install", None).unwrap().join("tool");
        install_once(&home, "1", |home| {
            std::fs::write(home.join("half"), "").unwrap();
            bail!("cut off")
        })
        .unwrap_err();
        install_once(&home, "1", |home| {
            assert!(!home.join("half").exists());
            Ok(())
        })
        .unwrap();
        install_once(&home, "1", |_| bail!("not again")).unwrap();
        install_once(&home, "2", |_| Ok(())).unwrap();
        std::fs::remove_dir_all(home.parent().unwrap()).unwrap();
    }
}
