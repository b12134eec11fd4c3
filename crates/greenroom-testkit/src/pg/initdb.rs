//! The data of a new cluster.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::Durability;
use crate::{
    place::{self, Owner},
    process::Guarded,
    tools,
};

/// Makes the data of a cluster in `home`, when there is none yet.
pub(super) fn initialise(
    bin: &Path,
    home: &Path,
    owner: Option<Owner>,
    durability: Durability,
) -> Result<()> {
    let (data, password) = (home.join("data"), home.join("password"));
    let made = home.join(".initialised");
    if made.exists() {
        return same_version(bin, &data);
    }
    std::fs::remove_dir_all(&data).ok();
    write_password(&password, owner)?;
    let program = Guarded::new("initdb", bin.join("initdb"), home.join("initdb.log"))
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", locale()])
        .args(["--pwfile".as_ref(), password.as_os_str(), "--pgdata".as_ref(), data.as_os_str()])
        .args((durability == Durability::None).then_some("--no-sync"))
        .in_directory(home)
        .as_owner(owner);
    program.run()?;
    std::fs::write(made, "")?;
    Ok(())
}

/// A locale that knows the letters of all languages, as production's will: `lower()` depends on it.
const fn locale() -> &'static str {
    if cfg!(target_os = "macos") { "--locale=en_US.UTF-8" } else { "--locale=C.UTF-8" }
}

fn write_password(file: &Path, owner: Option<Owner>) -> Result<()> {
    std::fs::write(file, "")?;
    std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
    std::fs::write(file, place::random_hex()?)?;
    owner.map_or(Ok(()), |owner| chown(file, Some(owner.uid), Some(owner.gid)))?;
    Ok(())
}

fn same_version(bin: &Path, data: &Path) -> Result<()> {
    let kept = std::fs::read_to_string(data.join("PG_VERSION"))
        .context("the kept data is not a PostgreSQL cluster")?;
    let ours = tools::postgres::major_version(&bin.join("postgres"));
    if kept.trim().parse().ok() != ours {
        bail!(
            "the data in {} is PostgreSQL {}'s: start over with --fresh",
            data.display(),
            kept.trim()
        );
    }
    Ok(())
}
