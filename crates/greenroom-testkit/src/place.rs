//! Where things are kept, who owns them, and which ports are free.

use std::{
    net::{TcpListener, UdpSocket},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::env;

/// An unprivileged user, for what refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The root of the repository this was built from.
///
/// # Panics
/// Never: this crate lives two directories below it.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lives in crates/greenroom-testkit")
}

/// Cargo's target directory: everything fetched or kept lives below it.
#[must_use]
pub fn target() -> PathBuf {
    // Joining an absolute path replaces the whole, joining a relative one is what cargo does from
    // the root.
    workspace().join(env::text("CARGO_TARGET_DIR").unwrap_or_else(|| "target".to_owned()))
}

/// Sixteen random hex digits.
///
/// # Errors
/// When the system has no randomness.
pub fn random_hex() -> Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}

/// A new directory below the system's temporary one, its owner's alone.
///
/// # Errors
/// When it cannot be made.
pub fn temporary(what: &str, owner: Option<Owner>) -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("greenroom-{what}-{}", random_hex()?));
    make(&directory, owner)?;
    Ok(directory)
}

/// A directory for something kept, that its owner can reach: the wanted one, or else one of the
/// system's temporary ones.
///
/// # Errors
/// When it cannot be made.
pub fn reachable(wanted: &Path, owner: Option<Owner>) -> Result<PathBuf> {
    make(wanted, owner)?;
    if owner.is_none_or(|owner| can_enter(wanted, owner)) {
        return Ok(wanted.to_owned());
    }
    std::fs::remove_dir(wanted).ok();
    let flat = wanted.to_string_lossy().replace('/', "-");
    let elsewhere = std::env::temp_dir().join(format!("greenroom{flat}"));
    make(&elsewhere, owner)?;
    Ok(elsewhere)
}

/// Whether we may do everything on this machine, such as install a package.
pub(crate) fn is_root() -> bool {
    id(&["-u"]) == Some(0)
}

/// Whom to become for programs that refuse root: nobody else when we are not root.
///
/// # Errors
/// When we are root and the system has neither a user `postgres` nor `nobody`.
pub fn unprivileged() -> Result<Option<Owner>> {
    if !is_root() {
        return Ok(None);
    }
    let owner = ["postgres", "nobody"]
        .iter()
        .find_map(|name| Some(Owner { uid: id(&["-u", name])?, gid: id(&["-g", name])? }));
    owner.map(Some).context(
        "PostgreSQL refuses to run as root: add a user named postgres, or run this as another user",
    )
}

/// A TCP port of 127.0.0.1 nobody listens on, at this moment.
///
/// # Errors
/// When there is none.
pub fn free_tcp_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A UDP port nobody has bound, at this moment.
///
/// # Errors
/// When there is none.
pub fn free_udp_port() -> Result<u16> {
    Ok(UdpSocket::bind(("0.0.0.0", 0))?.local_addr()?.port())
}

fn make(directory: &Path, owner: Option<Owner>) -> Result<()> {
    let make = || {
        std::fs::create_dir_all(directory)?;
        // In a directory that all may write, somebody else may have put a link in its place.
        if directory.symlink_metadata()?.is_symlink() {
            return Err(std::io::Error::other("it is a symbolic link"));
        }
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
        owner.map_or(Ok(()), |owner| chown(directory, Some(owner.uid), Some(owner.gid)))
    };
    make().with_context(|| format!("cannot make the directory {}", directory.display()))
}

fn can_enter(directory: &Path, owner: Owner) -> bool {
    use std::os::unix::process::CommandExt;
    let mut enter = Command::new("/bin/sh");
    enter.args(["-c", "cd \"$1\"", "sh"]).arg(directory).current_dir("/");
    enter.gid(owner.gid).uid(owner.uid).stderr(Stdio::null());
    enter.status().is_ok_and(|status| status.success())
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
