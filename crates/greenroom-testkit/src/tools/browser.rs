//! A browser that can run headless: Chromium or Chrome from `PATH`, or Debian's Chromium package.

use std::path::PathBuf;

use anyhow::Result;

use super::{apt, find_unresolved_on_path};

const MISSING: &str = "A browser is missing: install Chromium (on Debian the package chromium)";

/// Returns this machine's browser. If it has no browser, installs Chromium, which requires root and
/// `apt-get`. Blocks.
///
/// # Errors
/// Returns an error that names the package if there is no browser and it cannot be installed.
pub fn program() -> Result<PathBuf> {
    apt::find_or_install(installed, "chromium", MISSING)
}

fn installed() -> Option<PathBuf> {
    ["chromium", "google-chrome", "google-chrome-stable"]
        .into_iter()
        .find_map(find_unresolved_on_path)
}
