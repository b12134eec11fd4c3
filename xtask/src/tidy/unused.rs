//! Unused dependencies: crates that a manifest names and no source file of the package mentions.

use super::edges::{Dependency, Package};

/// Returns one sentence per unused dependency. `mentions` reports whether the package's sources
/// contain a crate's name; `ignored` are dependencies that are needed for their features alone.
pub fn faults(
    package: &Package,
    ignored: &[String],
    mentions: impl Fn(&str) -> bool,
) -> Vec<String> {
    let unused = |dependency: &&Dependency| {
        !ignored.contains(&dependency.name) && !mentions(&dependency.name.replace('-', "_"))
    };
    let fault = |dependency: &Dependency| {
        format!(
            "{}:{}: [dependencies] {} is unused; remove it, or list it in [package.metadata.cargo-machete]",
            package.manifest, dependency.line, dependency.name
        )
    };
    package.dependencies.iter().filter(unused).map(fault).collect()
}

/// Reports whether a source contains `name` as a whole word.
pub fn mentions(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let is_word = |one: char| one.is_alphanumeric() || one == '_';
        !source[..at].ends_with(is_word) && !source[at + name.len()..].starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::super::edges::Kind;
    use super::*;

    fn package() -> Package {
        let (kind, local) = (Kind::Program, false);
        let dependency = Dependency { name: "tokio-postgres".to_owned(), kind, line: 7, local };
        let manifest = "crates/a/Cargo.toml".to_owned();
        Package { name: "a".to_owned(), manifest, dependencies: vec![dependency] }
    }

    #[test]
    fn dependency_without_mention_is_unused() {
        let unused = faults(&package(), &[], |name| mentions("use tokio_postgresql::X;", name));
        assert_eq!(unused.len(), 1);
        let expected = "crates/a/Cargo.toml:7: [dependencies] tokio-postgres is unused";
        assert!(unused[0].starts_with(expected), "{}", unused[0]);
        assert!(faults(&package(), &["tokio-postgres".to_owned()], |_| false).is_empty());
    }

    #[test]
    fn mentioned_dependency_is_used() {
        assert!(
            faults(&package(), &[], |name| mentions("use tokio_postgres::X;", name)).is_empty()
        );
    }
}
