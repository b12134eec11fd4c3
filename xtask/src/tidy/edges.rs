//! Who may import whom: the table of `docs/architecture.md` as a failing command.

/// A crate of the workspace.
#[derive(Debug, Clone)]
pub struct Package {
    pub name: String,
    pub dependencies: Vec<Dependency>,
}

/// A line of its manifest.
#[derive(Debug, Clone)]
pub struct Dependency {
    pub name: String,
    pub kind: Kind,
    /// A crate of the workspace, too.
    pub local: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Program,
    Test,
}

/// What one crate may use.
struct Rule {
    name: &'static str,
    /// The crates of the workspace it may import.
    may: &'static [&'static str],
    /// The beginnings of the names of foreign crates it may never import.
    never: &'static [&'static str],
}

const TESTKIT: &str = "greenroom-testkit";

const RULES: [Rule; 7] = [
    Rule {
        name: "greenroom-domain",
        may: &[],
        never: &[
            "tokio",
            "diesel-async",
            "livekit",
            "actix",
            "paperclip",
            "reqwest",
            "getrandom",
            "rand",
        ],
    },
    Rule {
        name: "greenroom-store",
        may: &["greenroom-domain"],
        never: &["livekit", "actix", "paperclip", "reqwest"],
    },
    Rule {
        name: "greenroom-livekit",
        may: &["greenroom-domain"],
        never: &["diesel", "tokio-postgres", "actix", "paperclip"],
    },
    Rule {
        name: "greenroom-core",
        may: &["greenroom-domain", "greenroom-store", "greenroom-livekit"],
        never: &["actix", "paperclip", "http", "reqwest"],
    },
    Rule {
        name: TESTKIT,
        may: &["greenroom-store", "greenroom-livekit"],
        never: &["actix", "paperclip"],
    },
    Rule {
        name: "greenroom",
        may: &["greenroom-core", "greenroom-domain"],
        never: &["diesel", "tokio-postgres", "livekit"],
    },
    Rule { name: "xtask", may: &["greenroom-store", TESTKIT], never: &["actix", "paperclip"] },
];

/// One line for every edge that must not be.
pub fn faults(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(faults_of).collect()
}

fn faults_of(package: &Package) -> Vec<String> {
    let Some(rule) = RULES.iter().find(|rule| rule.name == package.name) else {
        return vec![format!(
            "{}: no rule says what it may import, add one to xtask/src/tidy/edges.rs",
            package.name
        )];
    };
    package.dependencies.iter().filter_map(|dependency| fault(rule, dependency)).collect()
}

fn fault(rule: &Rule, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if dependency.local {
        let in_tests = dependency.kind == Kind::Test && name == TESTKIT;
        let allowed = in_tests || rule.may.contains(&name);
        let allows = if rule.may.is_empty() { "none".to_owned() } else { rule.may.join(", ") };
        return (!allowed).then(|| {
            format!(
                "{}: must not import {name}, remove it from the manifest \
                 (of our crates it may import {allows})",
                rule.name
            )
        });
    }
    // Tests may look at a layer from outside: an HTTP test reads the database to see what was
    // written.
    let forbidden =
        dependency.kind == Kind::Program && rule.never.iter().any(|never| is_of(name, never));
    forbidden.then(|| {
        format!("{}: must never import {name}, move what needs it to the crate that may", rule.name)
    })
}

/// Whether a crate is of a family: `actix-web` is of `actix`, `httparse` is not of `http`.
fn is_of(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(name: &str, dependency: &str, kind: Kind) -> Vec<String> {
        let local = dependency == "xtask" || dependency.starts_with("greenroom");
        let dependency = Dependency { name: dependency.to_owned(), kind, local };
        faults(&[Package { name: name.to_owned(), dependencies: vec![dependency] }])
    }

    #[test]
    fn a_forbidden_edge_is_a_fault_that_names_both_ends() {
        let forbidden = [
            ("greenroom-domain", "greenroom-store"),
            ("greenroom-store", "greenroom-livekit"),
            ("greenroom-livekit", "greenroom-core"),
            ("greenroom-core", "greenroom"),
            ("greenroom", "greenroom-store"),
            ("xtask", "greenroom-core"),
            ("greenroom-core", "greenroom-testkit"),
            ("greenroom-domain", "tokio"),
            ("greenroom-store", "livekit-api"),
            ("greenroom-livekit", "diesel-async"),
            ("greenroom-livekit", "diesel_migrations"),
            ("greenroom-core", "actix-web"),
            ("greenroom", "livekit-protocol"),
        ];
        for (name, dependency) in forbidden {
            let faults = uses(name, dependency, Kind::Program);
            assert_eq!(faults.len(), 1, "{name} -> {dependency}");
            assert!(faults[0].starts_with(name) && faults[0].contains(dependency), "{}", faults[0]);
        }
    }

    #[test]
    fn an_allowed_edge_is_none() {
        let allowed = [
            ("greenroom-store", "greenroom-domain"),
            ("greenroom-core", "greenroom-livekit"),
            ("greenroom", "greenroom-core"),
            ("xtask", "greenroom-testkit"),
            ("greenroom-domain", "diesel"),
            ("greenroom-core", "diesel-async"),
            ("greenroom-core", "httparse"),
        ];
        for (name, dependency) in allowed {
            assert_eq!(
                uses(name, dependency, Kind::Program),
                Vec::<String>::new(),
                "{name} -> {dependency}"
            );
        }
    }

    #[test]
    fn tests_may_use_the_testkit_and_nothing_else_of_ours() {
        assert!(uses("greenroom-core", TESTKIT, Kind::Test).is_empty());
        assert_eq!(uses("greenroom", "greenroom-store", Kind::Test).len(), 1);
    }

    #[test]
    fn a_crate_without_a_rule_is_a_fault() {
        assert_eq!(
            faults(&[Package { name: "greenroom-extra".to_owned(), dependencies: Vec::new() }])
                .len(),
            1
        );
    }
}
