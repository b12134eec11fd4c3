//! The one file of xtask that reads the environment.

#![allow(clippy::disallowed_methods, reason = "this is the file the ban points to")]

/// A variable that is set and not empty.
pub fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The names of all variables, for taking some of them away from a child.
pub fn names() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
}
