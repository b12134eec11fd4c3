//! Licences, sources and duplicate versions of all dependencies, held against `deny.toml`.
//!
//! The same questions as `cargo deny check bans licenses sources`, for machines without cargo-deny.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, ParseMode};

/// The part of `deny.toml` that is enforced here.
#[derive(Debug, Deserialize)]
pub struct Policy {
    pub graph: Graph,
    licenses: Licenses,
    bans: Bans,
    /// The text of `deny.toml`, to find the line of an entry.
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Deserialize)]
pub struct Graph {
    /// Platforms whose dependencies are checked.
    pub targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
    /// Duplicate versions that are known and accepted.
    skip: Vec<Skipped>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Skipped {
    /// `name@version`.
    #[serde(rename = "crate")]
    krate: String,
}

/// A package of the dependency graph.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    /// The registry or repository it comes from; `None` for a crate of this workspace.
    pub source: Option<String>,
}

/// The part of `Cargo.lock` that is needed here.
#[derive(Debug, Default)]
pub struct LockFile {
    /// The line of each package by name and version.
    lines: HashMap<(String, String), usize>,
    /// The first registry in the file, which must be the source of all packages.
    registry: Option<String>,
}

impl LockFile {
    pub fn parse(text: &str) -> Self {
        let mut lock_file = Self::default();
        let mut package = None;
        for (line, number) in text.lines().zip(1..) {
            match line.split_once(" = ").map(|(key, value)| (key, value.trim_matches('"'))) {
                Some(("name", name)) => package = Some((name, number)),
                Some(("version", version)) => {
                    let Some((name, number)) = package.take() else { continue };
                    lock_file.lines.insert((name.to_owned(), version.to_owned()), number);
                }
                Some(("source", source)) if source.starts_with("registry+") => {
                    lock_file.registry.get_or_insert_with(|| source.to_owned());
                }
                _ => {}
            }
        }
        lock_file
    }

    fn line_of(&self, name: &str, version: &str) -> usize {
        self.lines.get(&(name.to_owned(), version.to_owned())).copied().unwrap_or(1)
    }
}

impl Policy {
    pub fn parse(deny: &str) -> Result<Self> {
        let policy: Self = toml::from_str(deny).context("deny.toml does not parse")?;
        Ok(Self { text: deny.to_owned(), ..policy })
    }

    /// Returns one sentence per violation.
    pub fn faults(&self, packages: &[Resolved], lock_file: &LockFile) -> Vec<String> {
        let mut faults: Vec<_> = packages
            .iter()
            .filter(|package| package.source.is_some())
            .flat_map(|package| self.package_faults(package, lock_file))
            .collect();
        faults.extend(self.duplicate_faults(packages, lock_file));
        faults.extend(self.skip_faults(packages));
        faults
    }

    fn package_faults(&self, package: &Resolved, lock_file: &LockFile) -> Vec<String> {
        let Resolved { name, version, license, source } = package;
        let place = format!("Cargo.lock:{}: [dependencies]", lock_file.line_of(name, version));
        let mut faults = Vec::new();
        if let Some(banned) = self.bans.deny.iter().find(|banned| banned.name == *name) {
            let reason = &banned.reason;
            faults.push(format!("{place} {name} {version} is banned: {reason}; remove it"));
        }
        let license = license.as_deref().unwrap_or_default();
        if !self.allows_license(license) {
            faults.push(format!(
                "{place} {name} {version} has the licence \"{license}\"; remove the package, or add the \
                 licence to `allow` in deny.toml"
            ));
        }
        if *source != lock_file.registry {
            let source = source.as_deref().unwrap_or_default();
            let registry = lock_file.registry.as_deref().unwrap_or("a registry");
            faults.push(format!(
                "{place} {name} {version} comes from {source}; use a version from {registry}, as for \
                 the other packages"
            ));
        }
        faults
    }

    fn allows_license(&self, license: &str) -> bool {
        // Old manifests separate alternatives by a slash.
        let Ok(expression) = Expression::parse_mode(license, ParseMode::LAX) else { return false };
        expression.evaluate(|requirement| {
            let text = requirement.to_string();
            self.licenses.allow.contains(&text)
        })
    }

    fn duplicate_faults(&self, packages: &[Resolved], lock_file: &LockFile) -> Vec<String> {
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for package in packages {
            let Resolved { name, version, .. } = package;
            let is_skipped =
                self.bans.skip.iter().any(|skip| skip.krate == format!("{name}@{version}"));
            if !is_skipped {
                versions.entry(name).or_default().push(version);
            }
        }
        let duplicates = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
        let fault = |(name, versions): (&str, Vec<&str>)| {
            format!(
                "Cargo.lock:{}: [dependencies] {name} is in the tree in several versions ({}); unify them, \
                 or add one to `skip` in deny.toml",
                lock_file.line_of(name, versions[0]),
                versions.join(", ")
            )
        };
        duplicates.map(fault).collect()
    }

    /// Finds entries of `skip` without a package, or without another version of the package.
    fn skip_faults(&self, packages: &[Resolved]) -> Vec<String> {
        let fault = |skip: &Skipped| {
            let (name, version) = skip.krate.split_once('@').unwrap_or((&skip.krate, ""));
            let mut versions = packages.iter().filter(|package| package.name == name);
            let is_used = versions.clone().any(|package| package.version == version)
                && versions.any(|package| package.version != version);
            let quoted = format!("\"{}\"", skip.krate);
            let number = self.text.lines().position(|line| line.contains(&quoted));
            (!is_used).then(|| {
                format!(
                    "deny.toml:{}: [dependencies] {} is not in the tree, or is the only version in the \
                     tree; remove it from `skip`",
                    number.map_or(1, |index| index + 1),
                    skip.krate
                )
            })
        };
        self.bans.skip.iter().filter_map(fault).collect()
    }
}

/// The packages of `cargo metadata` that are in the tree: lines of `name vVERSION`.
pub fn resolved(metadata: &Value, tree: &str) -> Vec<Resolved> {
    let package = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split_whitespace().next()?.to_owned()))
    };
    let in_tree: HashSet<_> = tree.lines().filter_map(package).collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let resolved = packages.map(|package| Resolved {
        name: text(&package["name"]).unwrap_or_default(),
        version: text(&package["version"]).unwrap_or_default(),
        license: text(&package["license"]),
        source: text(&package["source"]),
    });
    resolved
        .filter(|package| in_tree.contains(&(package.name.clone(), package.version.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "registry+https://example.com/index";

    fn lock_file() -> LockFile {
        let http = "[[package]]\nname = \"http\"\nversion = \"0.2.12\"";
        LockFile::parse(&format!("version = 4\n\n{http}\nsource = \"{REGISTRY}\"\n"))
    }

    /// Faults in addition to the `skip` entry, which most of these trees do not need.
    fn faults(packages: &[Resolved]) -> Vec<String> {
        let mut faults = policy().faults(packages, &lock_file());
        faults.retain(|fault| !fault.contains("`skip`") || fault.starts_with("Cargo.lock"));
        faults
    }

    fn policy() -> Policy {
        Policy::parse(
            r#"
            [graph]
            targets = ["x86_64-unknown-linux-gnu"]
            [licenses]
            allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
            [bans]
            deny = [{ name = "openssl", reason = "use rustls" }]
            skip = [{ crate = "base64@0.21.7", reason = "livekit-api" }]
            "#,
        )
        .unwrap()
    }

    fn package(name: &str, version: &str, license: &str) -> Resolved {
        Resolved {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some(license.to_owned()),
            source: Some(REGISTRY.to_owned()),
        }
    }

    #[test]
    fn license_expressions_are_evaluated() {
        for allowed in
            ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "Apache-2.0 WITH LLVM-exception OR GPL-3.0"]
        {
            assert!(faults(&[package("a", "1.0.0", allowed)]).is_empty(), "{allowed}");
        }
        for refused in ["GPL-3.0", "MIT AND GPL-3.0", "", "no licence"] {
            assert_eq!(faults(&[package("a", "1.0.0", refused)]).len(), 1, "{refused}");
        }
    }

    #[test]
    fn foreign_source_and_banned_crate_are_violations() {
        let git = Resolved {
            source: Some("git+https://git.example/a".to_owned()),
            ..package("a", "1.0.0", "MIT")
        };
        let mirror = Resolved {
            source: Some("registry+https://mirror.example/index".to_owned()),
            ..package("a", "1.0.0", "MIT")
        };
        assert_eq!(faults(&[git]).len(), 1);
        assert_eq!(faults(&[mirror]).len(), 1);
        assert_eq!(faults(&[package("openssl", "1.0.0", "MIT")]).len(), 1);
    }

    #[test]
    fn new_duplicate_version_is_a_violation() {
        let known = [package("base64", "0.21.7", "MIT"), package("base64", "0.22.1", "MIT")];
        assert_eq!(policy().faults(&known, &lock_file()), Vec::<String>::new());
        let new = [package("http", "0.2.12", "MIT"), package("http", "1.5.0", "MIT")];
        let faults = faults(&new);
        assert!(faults.len() == 1 && faults[0].contains("0.2.12, 1.5.0"), "{faults:?}");
        assert!(faults[0].starts_with("Cargo.lock:4: [dependencies] http "), "{faults:?}");
    }

    #[test]
    fn stale_skip_is_a_violation() {
        let only = [package("base64", "0.21.7", "MIT")];
        for packages in [&[][..], &only] {
            let faults = policy().faults(packages, &lock_file());
            assert_eq!(faults.len(), 1, "{faults:?}");
            let expected = "deny.toml:8: [dependencies] base64@0.21.7 ";
            assert!(faults[0].starts_with(expected), "{faults:?}");
        }
    }
}
