//! The Unix user that programs run as if they refuse to run as root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// An unprivileged user, for programs that refuse to run as root.
#[derive(Debug, Clone, Copy)]
pub struct UnixUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl UnixUser {
    /// Whether this user can change into `directory`. This requires root, because the
    /// check runs as this user.
    pub(crate) fn can_enter(self, directory: &Path) -> bool {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "cd \"$1\"", "sh"]).arg(directory).current_dir("/");
        shell.gid(self.gid).uid(self.uid).stderr(Stdio::null());
        shell.status().is_ok_and(|status| status.success())
    }
}

/// Whether this process runs as root and may, for example, install packages.
pub(crate) fn is_root() -> bool {
    id(&["-u"]) == Some(0)
}

/// Returns the user that runs programs that refuse root: `postgres` or `nobody`. `None` means that
/// this process does not run as root, so that no other user is needed.
///
/// # Errors
/// Returns an error if this process runs as root and neither `postgres` nor `nobody` exists.
pub fn unprivileged() -> Result<Option<UnixUser>> {
    if !is_root() {
        return Ok(None);
    }
    let user = ["postgres", "nobody"]
        .iter()
        .find_map(|name| Some(UnixUser { uid: id(&["-u", name])?, gid: id(&["-g", name])? }));
    user.map(Some).context(
        "PostgreSQL refuses to run as root: add a user named postgres, or run this as another user",
    )
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
