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
        faults.push(format!(
            "{file}:1: [file-names] name the module foo.rs beside foo/ instead of mod.rs"
        ));
    }
    let parts = path.with_extension("");
    if let Some(name) =
        parts.iter().filter_map(|part| part.to_str()).find(|part| EMPTY_NAMES.contains(part))
    {
        faults.push(format!(
            "{file}:1: [file-names] the name {name} says nothing; name the file after its contents"
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
            "{file}:1: [module-comments] the first line is no `//!` comment; say in one line what the file contains"
        ));
    }
    if is_rust {
        faults.extend(import_faults(file, text));
    }
    for (line, number) in text.lines().zip(1..) {
        if HOMES.iter().any(|(one, two)| names_home(line, &format!("{one}{two}"))) {
            faults
                .push(format!("{file}:{number}: [paths] a path of one machine; make it relative"));
        }
    }
    faults
}

/// Imports are grouped by module: one `use` per module path, no nested braces. Re-exports of the
/// file's own modules begin with `self::` and come after the imports.
fn import_faults(file: &str, text: &str) -> Vec<String> {
    let modules: Vec<_> = text.lines().filter_map(declared_module).collect();
    let mut faults = Vec::new();
    let mut reexport = None;
    for (number, declaration) in declarations(text) {
        let is_nested = declaration.matches('{').count() > 1;
        let is_top_level = !declaration.starts_with(' ');
        let mut fault = |rule: &str| faults.push(format!("{file}:{number}: [imports] {rule}"));
        if is_nested {
            fault("nested imports; write one `use` per module");
        }
        let path = declaration.split_once("use ").map_or("", |(_, path)| path);
        let module = path.split([':', ';']).next().unwrap_or_default();
        if is_top_level && modules.contains(&module) {
            fault(&format!("{module} is a module of this file; write `self::{module}`"));
        }
        if declaration.starts_with("pub use self::") {
            reexport = Some(number);
        } else if let Some(line) = reexport.filter(|_| is_top_level) {
            fault(&format!("an import after the re-export of line {line}; move it up"));
        }
    }
    faults
}

/// The name in a declaration of a module at the top level of a file.
fn declared_module(line: &str) -> Option<&str> {
    let after = line.strip_prefix("pub ").or(line.strip_prefix("pub(crate) ")).unwrap_or(line);
    after.strip_prefix("mod ")?.strip_suffix(';')
}

/// The `use` declarations of a file with their lines, each as one line with its indentation.
fn declarations(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (line, number) in text.lines().zip(1..) {
        let code = line.trim_start();
        if !is_open && (code.starts_with("use ") || code.starts_with("pub use ")) {
            all.push((number, line[..line.len() - code.len()].to_owned()));
            is_open = true;
        }
        if let (true, Some((_, declaration))) = (is_open, all.last_mut()) {
            declaration.push_str(line.trim());
            is_open = !line.contains(';');
        }
    }
    all
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
            ["a.rs:3: [imports] nested imports; write one `use` per module"]
        );
        assert!(text_faults("a.rs", "//! A.\n\nuse std::sync::{Arc, Mutex};\n").is_empty());
    }

    #[test]
    fn reexports_begin_with_self_and_come_last() {
        let head = "//! A.\n\nmod room;\n\n";
        for (imports, line) in [
            ("pub use room::Room;\n", 5),
            ("use room::Room;\n", 5),
            ("pub use self::room::Room;\n\nuse std::fmt;\n", 7),
        ] {
            let faults = text_faults("a.rs", &format!("{head}{imports}"));
            assert_eq!(faults.len(), 1, "{imports}: {faults:?}");
            assert!(faults[0].starts_with(&format!("a.rs:{line}: [imports] ")), "{faults:?}");
        }
        let good = "use std::fmt;\n\npub use self::room::{\n    Room,\n    Wall,\n};\n";
        assert!(text_faults("a.rs", &format!("{head}{good}")).is_empty());
    }

    #[test]
    fn path_of_one_machine_is_a_violation() {
        let (ann, root) = (["/home", "/ann/x"].concat(), ["/root", "/x"].concat());
        assert_eq!(
            text_faults("a.md", &format!("see\n{ann} and `{root}`\n")),
            ["a.md:2: [paths] a path of one machine; make it relative"]
        );
        for fine in ["example.com/home/page", "target/root/x", "<prefix>/home/"] {
            assert!(text_faults("a.md", fine).is_empty(), "{fine}");
        }
    }
}
