//! The only file of the testkit that reads environment variables.

#![expect(clippy::disallowed_methods, reason = "clippy.toml allows these methods only here")]

use std::path::PathBuf;

/// Returns the value of a variable that is set and not empty.
pub(crate) fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the number in a variable that makes a test longer or repeats one of its runs. `None` if the
/// variable is not set or is not a number.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    text(name)?.parse().ok()
}

/// Returns the directories of `PATH` in their order.
pub(crate) fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}
