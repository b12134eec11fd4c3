//! Creates the data of a new cluster with `initdb`.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Durability;
use crate::process::GuardedCommand;
use crate::unix_user::UnixUser;
use crate::{random_hex, tools};

/// Creates the data of a cluster in `directory`, or checks the version of data that already exists.
pub(super) fn initialize(
    bin: &Path,
    directory: &Path,
    owner: Option<UnixUser>,
    durability: Durability,
) -> Result<()> {
    let (data, password) = (directory.join("data"), directory.join("password"));
    let marker = directory.join(".initialised");
    if marker.exists() {
        return check_version(bin, &data);
    }
    std::fs::remove_dir_all(&data).ok();
    write_password(&password, owner)?;
    let command = GuardedCommand::new("initdb", bin.join("initdb"), directory.join("initdb.log"))
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", locale()])
        .args(["--pwfile".as_ref(), password.as_os_str(), "--pgdata".as_ref(), data.as_os_str()])
        .args((durability == Durability::None).then_some("--no-sync"))
        .current_dir(directory)
        .run_as(owner);
    command.run()?;
    std::fs::write(marker, "")?;
    Ok(())
}

/// Copies the data of the cluster that runs on this port into `directory`, as the data of a standby.
pub(super) fn copy(
    bin: &Path,
    directory: &Path,
    port: u16,
    password: &str,
    owner: Option<UnixUser>,
) -> Result<()> {
    let (program, log) = (bin.join("pg_basebackup"), directory.join("basebackup.log"));
    let command = GuardedCommand::new("pg_basebackup", program, log)
        .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
        .args(["--host=127.0.0.1", &format!("--port={port}"), "--username=postgres"])
        .args(["--pgdata".as_ref(), directory.join("data").as_os_str()])
        // All users of the machine can read the arguments.
        .env("PGPASSWORD", password)
        .current_dir(directory)
        .run_as(owner);
    command.run().map(drop)
}

/// Returns a locale that knows the letters of all languages, because `lower()` depends on the
/// locale and production databases use such a locale.
const fn locale() -> &'static str {
    if cfg!(target_os = "macos") { "--locale=en_US.UTF-8" } else { "--locale=C.UTF-8" }
}

fn write_password(file: &Path, owner: Option<UnixUser>) -> Result<()> {
    std::fs::write(file, "")?;
    std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
    std::fs::write(file, random_hex()?)?;
    owner.map_or(Ok(()), |owner| chown(file, Some(owner.uid), Some(owner.gid)))?;
    Ok(())
}

fn check_version(bin: &Path, data: &Path) -> Result<()> {
    let data_version = std::fs::read_to_string(data.join("PG_VERSION"))
        .with_context(|| format!("{} contains no PostgreSQL cluster", data.display()))?;
    let program_version = tools::postgres::major_version(&bin.join("postgres"));
    if data_version.trim().parse().ok() != program_version {
        bail!(
            "the data in {} was created by PostgreSQL {}, and {} contains another version: \
             start over with --fresh",
            data.display(),
            data_version.trim(),
            bin.display()
        );
    }
    Ok(())
}
