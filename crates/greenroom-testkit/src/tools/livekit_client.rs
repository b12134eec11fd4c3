//! LiveKit's SDK for browsers: the npm package `livekit-client`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha512};

use super::{apt, find_unresolved_on_path, install_once, is_installed, tools_dir};
use crate::process::GuardedCommand;

const VERSION: &str = "2.23.0";

/// The hash of the package: npm's `dist.integrity` in hex.
const SHA512: &str = "8fd2a0f3a9c98c18cd1540feba4a768f030219ad24f980f9814fff47300cf99637a5b1badf5402b5eedf423c2a58c9ad07384324bf67298b8e2ccbfff486c0c6";

const MISSING: &str = "npm is missing: install Node.js with npm (on Debian the package npm)";

/// Returns the JavaScript module that a page imports, a single file with all dependencies. If it is
/// missing, downloads it, which takes some seconds. Blocks.
///
/// # Errors
/// Returns an error if npm is missing, the package cannot be downloaded, or its hash is not the
/// pinned one.
pub fn module() -> Result<PathBuf> {
    let directory = tools_dir().join("livekit-client");
    if !is_installed(&directory, SHA512) {
        let npm = apt::find_or_install(|| find_unresolved_on_path("npm"), "npm", MISSING)?;
        install_once(&directory, SHA512, |directory| download(&npm, directory))?;
    }
    Ok(directory.join("package/dist/livekit-client.esm.mjs"))
}

fn download(npm: &Path, directory: &Path) -> Result<()> {
    let log = directory.join("install.log");
    GuardedCommand::new("npm-pack", npm, &log)
        .args(["pack", "--ignore-scripts", "--no-update-notifier"])
        .args([format!("livekit-client@{VERSION}")])
        .current_dir(directory)
        .run()?;
    let package = directory.join(format!("livekit-client-{VERSION}.tgz"));
    let bytes = std::fs::read(&package).context("npm pack created no package")?;
    let found = format!("{:x}", Sha512::digest(bytes));
    if found != SHA512 {
        bail!("{} has the SHA-512 {found}, not the pinned {SHA512}", package.display());
    }
    GuardedCommand::new("tar", "tar", &log)
        .args(["-xzf"])
        .args([&package])
        .current_dir(directory)
        .run()?;
    Ok(std::fs::remove_file(package)?)
}
