//! What every source file keeps to.

use std::path::Path;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] =
    ["utils", "util", "common", "helpers", "helper", "prelude", "services", "manager", "misc"];

/// Where people keep their own files; such a path holds on one machine only. In two parts, or this
/// file names them, too.
const HOMES: [(&str, &str); 3] = [("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/")];

/// What is wrong with how a file is called.
pub fn name_faults(file: &str) -> Vec<String> {
    let path = Path::new(file);
    if path.extension().is_none_or(|extension| extension != "rs") {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if path.ends_with("mod.rs") {
        faults.push(format!("{file}: a module is foo.rs beside foo/, rename it"));
    }
    let parts = path.with_extension("");
    if let Some(name) =
        parts.iter().filter_map(|part| part.to_str()).find(|part| EMPTY_NAMES.contains(part))
    {
        faults.push(format!("{file}: {name} says nothing, name it after what is inside"));
    }
    faults
}

/// What is wrong with what a file says.
pub fn text_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let is_rust = Path::new(file).extension().is_some_and(|extension| extension == "rs");
    if is_rust && !text.starts_with("//! ") {
        faults.push(format!("{file}: it does not open with what it is for, add a `//!` line"));
    }
    for (line, number) in text.lines().zip(1..) {
        if HOMES.iter().any(|(one, two)| names_home(line, &format!("{one}{two}"))) {
            faults
                .push(format!("{file}:{number}: it names a path of one machine, make it relative"));
        }
    }
    faults
}

/// Whether a line holds the path itself, and not an address or a longer path that merely contains
/// it.
fn names_home(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + home.len()..].chars().next();
        !before.is_some_and(|one| one.is_alphanumeric() || "._-/}".contains(one))
            && after.is_some_and(|one| one.is_alphanumeric() || one == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_says_nothing_is_a_fault() {
        for file in [
            "crates/x/src/mod.rs",
            "crates/x/src/utils.rs",
            "crates/x/src/common/room.rs",
            "bin/x/src/services.rs",
        ] {
            assert_eq!(name_faults(file).len(), 1, "{file}");
        }
        for file in ["crates/x/src/room.rs", "docs/common.md", "crates/x/src/model.rs"] {
            assert!(name_faults(file).is_empty(), "{file}");
        }
    }

    #[test]
    fn a_source_opens_with_what_it_is_for() {
        assert_eq!(text_faults("a.rs", "use std::fmt;\n").len(), 1);
        assert!(text_faults("a.rs", "//! Rooms.\n").is_empty());
        assert!(text_faults("a.py", "import os\n").is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_a_fault() {
        let (ann, root) = (["/home", "/ann/x"].concat(), ["/root", "/x"].concat());
        assert_eq!(
            text_faults("a.md", &format!("see\n{ann} and `{root}`\n")),
            ["a.md:2: it names a path of one machine, make it relative"]
        );
        for fine in ["example.com/home/page", "target/root/x", "<prefix>/home/"] {
            assert!(text_faults("a.md", fine).is_empty(), "{fine}");
        }
    }
}
