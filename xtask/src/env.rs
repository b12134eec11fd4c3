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

/// A variable that a cargo sets for the program it runs. Handed on to another cargo, it makes build
/// scripts that read it (ring's does) run again, and all that is built on them be built again: this
/// time, and the next time without it.
pub fn is_of_cargo_run(name: &str) -> bool {
    name == "CARGO"
        || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_set_for_cargo_is_kept() {
        assert!(is_of_cargo_run("CARGO_PKG_NAME") && is_of_cargo_run("CARGO_MANIFEST_DIR"));
        for name in ["CARGO_TARGET_DIR", "CARGO_HOME", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!is_of_cargo_run(name), "{name}");
        }
    }
}
