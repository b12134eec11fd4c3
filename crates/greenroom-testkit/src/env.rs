//! The one file of the testkit that reads the environment.

#![allow(clippy::disallowed_methods, reason = "this is the file the ban points to")]

use std::path::PathBuf;

/// A variable that is set and not empty.
pub(crate) fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The directories of `PATH`, in its order.
pub(crate) fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}
