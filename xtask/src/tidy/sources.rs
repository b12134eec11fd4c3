//! Rules for file names and for the text of source files.

use std::path::Path;

/// File names that do not describe their contents.
const EMPTY_NAMES: [&str; 9] =
    ["utils", "util", "common", "helpers", "helper", "prelude", "services", "manager", "misc"];

/// Home directories. A path below one exists on one machine only. Split in two, so that this file
/// does not contain them.
const HOMES: [(&str, &str); 3] = [("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/")];

/// Returns one sentence per violation in the name of a file.
pub fn name_faults(file: &str) -> Vec<String> {
    let path = Path::new(file);
    if path.extension().is_none_or(|extension| extension != "rs") {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if path.ends_with("mod.rs") {
        faults.push(format!("{file}: name the module foo.rs beside foo/ instead of mod.rs"));
    }
    let parts = path.with_extension("");
    if let Some(name) =
        parts.iter().filter_map(|part| part.to_str()).find(|part| EMPTY_NAMES.contains(part))
    {
        faults.push(format!(
            "{file}: the name {name} says nothing; name the file after its contents"
        ));
    }
    faults
}

/// Returns one sentence per violation in the text of a file.
pub fn text_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let is_rust = Path::new(file).extension().is_some_and(|extension| extension == "rs");
    if is_rust && !text.starts_with("//! ") {
        faults.push(format!(
            "{file}: the first line is no `//!` comment; say in one line what the file contains"
        ));
    }
    if is_rust {
        faults.extend(import_faults(file, text));
    }
    for (line, number) in text.lines().zip(1..) {
        if HOMES.iter().any(|(one, two)| names_home(line, &format!("{one}{two}"))) {
            faults.push(format!("{file}:{number}: a path of one machine; make it relative"));
        }
    }
    faults
}

/// Imports are grouped by module: one `use` per module path, no nested braces.
fn import_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut declaration: Option<(usize, String)> = None;
    for (line, number) in text.lines().zip(1..) {
        let code = line.trim();
        if declaration.is_none() && (code.starts_with("use ") || code.starts_with("pub use ")) {
            declaration = Some((number, String::new()));
        }
        if let Some((first, text)) = &mut declaration {
            text.push_str(code);
            if code.ends_with(';') {
                if text.matches('{').count() > 1 {
                    faults.push(format!(
                        "{file}:{first}: nested imports; write one `use` per module"
                    ));
                }
                declaration = None;
            }
        }
    }
    faults
}

/// Reports whether a line contains the path itself, and not a URL or a longer path around it.
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
    fn empty_name_is_a_violation() {
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
    fn source_opens_with_a_module_comment() {
        assert_eq!(text_faults("a.rs", "use std::fmt;\n").len(), 1);
        assert!(text_faults("a.rs", "//! Rooms.\n").is_empty());
        assert!(text_faults("a.py", "import os\n").is_empty());
    }

    #[test]
    fn nested_imports_are_a_violation() {
        let nested = "//! A.\n\nuse std::{\n    fmt,\n    sync::{Arc, Mutex},\n};\n";
        assert_eq!(
            text_faults("a.rs", nested),
            ["a.rs:3: nested imports; write one `use` per module"]
        );
        assert!(text_faults("a.rs", "//! A.\n\nuse std::sync::{Arc, Mutex};\n").is_empty());
    }

    #[test]
    fn path_of_one_machine_is_a_violation() {
        let (ann, root) = (["/home", "/ann/x"].concat(), ["/root", "/x"].concat());
        assert_eq!(
            text_faults("a.md", &format!("see\n{ann} and `{root}`\n")),
            ["a.md:2: a path of one machine; make it relative"]
        );
        for fine in ["example.com/home/page", "target/root/x", "<prefix>/home/"] {
            assert!(text_faults("a.md", fine).is_empty(), "{fine}");
        }
    }
}
