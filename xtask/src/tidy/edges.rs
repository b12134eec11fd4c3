//! Allowed dependencies of each crate: the table of `docs/architecture.md` as a failing check.

/// A crate of the workspace.
#[derive(Debug, Clone)]
pub struct Package {
    pub name: String,
    /// The path of its manifest, relative to the workspace.
    pub manifest: String,
    pub dependencies: Vec<Dependency>,
}

/// A dependency of a crate.
#[derive(Debug, Clone)]
pub struct Dependency {
    pub name: String,
    pub kind: Kind,
    /// Its line in the manifest.
    pub line: usize,
    /// Whether it is a crate of this workspace.
    pub local: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Program,
    Test,
}

/// The allowed dependencies of one crate.
struct Rule {
    name: &'static str,
    /// Workspace crates it may depend on.
    may: &'static [&'static str],
    /// External crates it may depend on. Adding one is a decision; record it here.
    foreign: &'static [&'static str],
}

const TESTKIT: &str = "greenroom-testkit";

const RULES: [Rule; 7] = [
    Rule {
        name: "greenroom-domain",
        may: &[],
        foreign: &["chrono", "diesel", "serde", "serde_json", "thiserror", "uuid"],
    },
    Rule {
        name: "greenroom-store",
        may: &["greenroom-domain"],
        foreign: &[
            "chrono",
            "diesel",
            "diesel-async",
            "diesel_migrations",
            "futures-util",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio-postgres",
            "uuid",
        ],
    },
    Rule {
        name: "greenroom-livekit",
        may: &["greenroom-domain"],
        foreign: &[
            "async-trait",
            "base64",
            "chrono",
            "hmac",
            "hyper",
            "livekit-api",
            "livekit-protocol",
            "parking_lot",
            "prost",
            "reqwest",
            "rustls",
            "secrecy",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "webpki-roots",
        ],
    },
    Rule {
        name: "greenroom-core",
        may: &["greenroom-domain", "greenroom-store", "greenroom-livekit"],
        foreign: &[
            "base64",
            "chrono",
            "diesel-async",
            "futures-util",
            "parking_lot",
            "rand",
            "sha2",
            "thiserror",
            "tokio",
            "tracing",
            "uuid",
        ],
    },
    Rule {
        name: TESTKIT,
        may: &["greenroom-store"],
        foreign: &[
            "anyhow",
            "axum",
            "base64",
            "getrandom",
            "jsonwebtoken",
            "livekit-api",
            "livekit-protocol",
            "parking_lot",
            "prost",
            "serde",
            "serde_json",
            "sha2",
            "tokio",
            "tokio-postgres",
            "uuid",
        ],
    },
    Rule {
        name: "greenroom",
        may: &["greenroom-core"],
        foreign: &[
            "actix-cors",
            "actix-web",
            "anstream",
            "anyhow",
            "base64",
            "chrono",
            "clap",
            "config",
            "humantime",
            "json-patch",
            "jsonwebtoken",
            "paperclip",
            "parking_lot",
            "percent-encoding",
            "reqwest",
            "rustls",
            "secrecy",
            "serde",
            "serde_json",
            "serde_path_to_error",
            "serde_urlencoded",
            "strsim",
            "tokio",
            "toml",
            "tracing",
            "tracing-subscriber",
            "utoipa-swagger-ui-vendored",
            "uuid",
            "zip",
        ],
    },
    Rule {
        name: "xtask",
        may: &["greenroom-domain", "greenroom-store", TESTKIT],
        foreign: &[
            "anyhow",
            "aws-lc-rs",
            "base64",
            "chrono",
            "clap",
            "indicatif",
            "jsonwebtoken",
            "parking_lot",
            "regex",
            "reqwest",
            "rustls",
            "serde",
            "serde_json",
            "spdx",
            "tokio",
            "tokio-postgres",
            "toml",
            "uuid",
        ],
    },
];

/// Returns the line of a dependency in a manifest, or 1 if the manifest does not name it.
pub fn line_of(manifest: &str, name: &str, kind: Kind) -> usize {
    let mut section = "";
    for (line, number) in manifest.lines().zip(1..) {
        if let Some(header) = line.trim().strip_prefix('[') {
            section = header.trim_end_matches(']');
        }
        let is_kind = section.contains("dev-dependencies") == (kind == Kind::Test);
        if !section.contains("dependencies") || !is_kind {
            continue;
        }
        let key = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let is_table = line.starts_with('[') && section.ends_with(&format!("dependencies.{name}"));
        if key == name || is_table || line.contains(&format!("package = \"{name}\"")) {
            return number;
        }
    }
    1
}

/// Returns one sentence per forbidden dependency.
pub fn faults(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(faults_of).collect()
}

fn faults_of(package: &Package) -> Vec<String> {
    let Some(rule) = RULES.iter().find(|rule| rule.name == package.name) else {
        return vec![format!(
            "{}:1: [dependencies] no rule lists the allowed dependencies of {}; add one to \
             xtask/src/tidy/edges.rs",
            package.manifest, package.name
        )];
    };
    let fault = |dependency: &Dependency| {
        let (text, line) = (fault(rule, dependency)?, dependency.line);
        Some(format!("{}:{line}: [dependencies] {text}", package.manifest))
    };
    package.dependencies.iter().filter_map(fault).collect()
}

fn fault(rule: &Rule, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if dependency.local {
        let in_tests = dependency.kind == Kind::Test && name == TESTKIT;
        let allowed = in_tests || rule.may.contains(&name);
        let allows = if rule.may.is_empty() { "none".to_owned() } else { rule.may.join(", ") };
        return (!allowed).then(|| {
            format!(
                "{} must not depend on {name}; remove it from the manifest \
                 (allowed workspace crates: {allows})",
                rule.name
            )
        });
    }
    // Tests may use any external crate: an HTTP test reads the database to check what was written.
    let forbidden = dependency.kind == Kind::Program && !rule.foreign.contains(&name);
    forbidden.then(|| {
        format!(
            "{} must not depend on {name}; move the code to a crate that may, \
             or allow it in xtask/src/tidy/edges.rs",
            rule.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(name: &str, dependency: &str, kind: Kind) -> Vec<String> {
        let local = dependency == "xtask" || dependency.starts_with("greenroom");
        let dependency = Dependency { name: dependency.to_owned(), kind, line: 7, local };
        faults(&[package(name, vec![dependency])])
    }

    fn package(name: &str, dependencies: Vec<Dependency>) -> Package {
        let manifest = "crates/a/Cargo.toml".to_owned();
        Package { name: name.to_owned(), manifest, dependencies }
    }

    #[test]
    fn forbidden_dependency_is_a_violation_that_names_both_crates() {
        let forbidden = [
            ("greenroom-domain", "greenroom-store"),
            ("greenroom-store", "greenroom-livekit"),
            ("greenroom-livekit", "greenroom-core"),
            ("greenroom-core", "greenroom"),
            ("greenroom", "greenroom-domain"),
            ("greenroom", "greenroom-store"),
            ("xtask", "greenroom-core"),
            ("greenroom-core", "greenroom-testkit"),
            ("greenroom-domain", "tokio"),
            ("greenroom-domain", "sqlx"),
            ("greenroom-store", "livekit-api"),
            ("greenroom-livekit", "diesel-async"),
            ("greenroom-livekit", "diesel_migrations"),
            ("greenroom-core", "actix-web"),
            ("greenroom", "livekit-protocol"),
        ];
        for (name, dependency) in forbidden {
            let faults = uses(name, dependency, Kind::Program);
            assert_eq!(faults.len(), 1, "{name} -> {dependency}");
            let expected = format!("crates/a/Cargo.toml:7: [dependencies] {name} must not ");
            assert!(faults[0].starts_with(&expected), "{}", faults[0]);
            assert!(faults[0].contains(dependency), "{}", faults[0]);
        }
    }

    #[test]
    fn allowed_dependency_is_no_violation() {
        let allowed = [
            ("greenroom-store", "greenroom-domain"),
            ("greenroom-core", "greenroom-livekit"),
            ("greenroom", "greenroom-core"),
            ("xtask", "greenroom-testkit"),
            ("greenroom-domain", "diesel"),
            ("greenroom-core", "diesel-async"),
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
    fn tests_may_use_only_the_testkit_of_the_workspace() {
        assert!(uses("greenroom-core", TESTKIT, Kind::Test).is_empty());
        assert_eq!(uses("greenroom", "greenroom-store", Kind::Test).len(), 1);
    }

    #[test]
    fn crate_without_rule_is_a_violation() {
        assert_eq!(faults(&[package("greenroom-extra", Vec::new())]).len(), 1);
    }

    #[test]
    fn line_of_a_dependency_is_found_in_its_section() {
        let manifest = "[package]\nname = \"a\"\n\n[dependencies]\ntokio.workspace = true\n\
            web = { package = \"axum\", version = \"1\" }\n\n[dev-dependencies]\ntokio = \"1\"\n\n\
            [dependencies.serde]\nversion = \"1\"\n";
        for (name, kind, line) in [
            ("tokio", Kind::Program, 5),
            ("tokio", Kind::Test, 9),
            ("axum", Kind::Program, 6),
            ("serde", Kind::Program, 11),
            ("absent", Kind::Program, 1),
        ] {
            assert_eq!(line_of(manifest, name, kind), line, "{name}");
        }
    }
}
