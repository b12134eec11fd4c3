//! A browser that needs no screen: the Chromium or Chrome on PATH, or Debian's package.

use std::path::PathBuf;

use anyhow::Result;

use super::{apt, unresolved_on_path};

const MISSING: &str = "A browser is missing: install Chromium (on Debian the package chromium)";

/// This machine's Chromium, installed now when there is none and that takes no question: as root,
/// where there is `apt-get`. Blocks.
///
/// # Errors
/// When there is none; the message names the package.
pub fn program() -> Result<PathBuf> {
    apt::program(installed, "chromium", MISSING)
}

fn installed() -> Option<PathBuf> {
    ["chromium", "google-chrome", "google-chrome-stable"].into_iter().find_map(unresolved_on_path)
}
