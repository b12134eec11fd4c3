//! The repository's directories, and directories created for tests and tools.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::unix_user::UnixUser;
use crate::{env, random_hex};

/// Returns the root of the repository from which this crate was built.
///
/// # Panics
/// Never: this crate is two directories below the root.
#[must_use]
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate is in crates/greenroom-testkit")
}

/// Returns the names of the repository's migrations, oldest first.
///
/// # Errors
/// Returns an error if the directory cannot be read.
pub fn migration_names() -> Result<Vec<String>> {
    let directory = workspace_root().join("migrations");
    let entries = std::fs::read_dir(&directory)
        .with_context(|| format!("failed to read {}", directory.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Returns Cargo's target directory, which also holds the downloaded tools and the kept data.
#[must_use]
pub fn target_dir() -> PathBuf {
    // Like Cargo, resolve a relative `CARGO_TARGET_DIR` against the root. `join` returns an
    // absolute path unchanged.
    workspace_root().join(env::text("CARGO_TARGET_DIR").unwrap_or_else(|| "target".to_owned()))
}

/// Creates `greenroom-<label>-<random digits>` in the system's temporary directory. Only `owner`
/// can access it; `None` means the current user.
///
/// # Errors
/// Returns an error if the directory cannot be created.
pub fn create_temp_dir(label: &str, owner: Option<UnixUser>) -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("greenroom-{label}-{}", random_hex()?));
    create_private_dir(&directory, owner)?;
    Ok(directory)
}

/// Creates a directory for data that is kept, and returns its path. This is `wanted`, or, if
/// `owner` cannot reach `wanted`, a directory in the system's temporary directory with a name that
/// is derived from `wanted`.
///
/// # Errors
/// Returns an error if the directory cannot be created.
pub fn create_accessible_dir(wanted: &Path, owner: Option<UnixUser>) -> Result<PathBuf> {
    create_private_dir(wanted, owner)?;
    if owner.is_none_or(|owner| owner.can_enter(wanted)) {
        return Ok(wanted.to_owned());
    }
    std::fs::remove_dir(wanted).ok();
    let flat_name = wanted.to_string_lossy().replace('/', "-");
    let fallback = std::env::temp_dir().join(format!("greenroom{flat_name}"));
    create_private_dir(&fallback, owner)?;
    Ok(fallback)
}

fn create_private_dir(directory: &Path, owner: Option<UnixUser>) -> Result<()> {
    let create = || {
        std::fs::create_dir_all(directory)?;
        // In a world-writable directory, another user may have created a symbolic link with this
        // name.
        if directory.symlink_metadata()?.is_symlink() {
            return Err(io::Error::other("it is a symbolic link"));
        }
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        owner.map_or(Ok(()), |owner| chown(directory, Some(owner.uid), Some(owner.gid)))
    };
    create().with_context(|| format!("failed to create the directory {}", directory.display()))
}
