//! The only file of xtask that reads environment variables.

#![expect(clippy::disallowed_methods, reason = "clippy.toml allows these methods only here")]

/// Returns the value of a variable that is set and not empty.
pub fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the names of all variables, so that some of them can be removed for a child process.
pub fn names() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
}

/// Whether cargo sets this variable for the program that it runs.
///
/// A nested cargo must not inherit these variables: some build scripts (ring's, for example) read
/// them, so the nested cargo would rebuild those crates and everything that depends on them. A
/// direct call of cargo would then rebuild them once more.
pub fn is_set_by_cargo(name: &str) -> bool {
    name == "CARGO"
        || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_user_are_not_set_by_cargo() {
        assert!(is_set_by_cargo("CARGO_PKG_NAME") && is_set_by_cargo("CARGO_MANIFEST_DIR"));
        for name in ["CARGO_TARGET_DIR", "CARGO_HOME", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!is_set_by_cargo(name), "{name}");
        }
    }
}
