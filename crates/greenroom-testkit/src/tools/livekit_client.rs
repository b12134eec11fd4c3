//! LiveKit's SDK for pages, `livekit-client`, as npm packs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha512};

use super::{apt, directory, install_once, is_installed, unresolved_on_path};
use crate::process::Guarded;

const VERSION: &str = "2.23.0";

/// Of the package: npm's `dist.integrity`, in hex.
const SHA512: &str = "8fd2a0f3a9c98c18cd1540feba4a768f030219ad24f980f9814fff47300cf99637a5b1badf5402b5eedf423c2a58c9ad07384324bf67298b8e2ccbfff486c0c6";

const MISSING: &str = "npm is missing: install Node.js with npm (on Debian the package npm)";

/// The module that a page imports, with all it needs in one file; fetched now (some seconds) when it
/// was not before. Blocks.
///
/// # Errors
/// When npm is missing, or the package cannot be fetched or is not the pinned one.
pub fn module() -> Result<PathBuf> {
    let home = directory().join("livekit-client");
    if !is_installed(&home, SHA512) {
        let npm = apt::program(|| unresolved_on_path("npm"), "npm", MISSING)?;
        install_once(&home, SHA512, |home| fetch(&npm, home))?;
    }
    Ok(home.join("package/dist/livekit-client.esm.mjs"))
}

fn fetch(npm: &Path, home: &Path) -> Result<()> {
    let log = home.join("install.log");
    Guarded::new("npm-pack", npm, &log)
        .args(["pack", "--ignore-scripts", "--no-update-notifier"])
        .args([format!("livekit-client@{VERSION}")])
        .in_directory(home)
        .run()?;
    let package = home.join(format!("livekit-client-{VERSION}.tgz"));
    let packed = std::fs::read(&package).context("npm left no package")?;
    let found = format!("{:x}", Sha512::digest(packed));
    if found != SHA512 {
        bail!("{} has the SHA-512 {found}, not the pinned {SHA512}", package.display());
    }
    Guarded::new("tar", "tar", &log).args(["-xzf"]).args([&package]).in_directory(home).run()?;
    Ok(std::fs::remove_file(package)?)
}
