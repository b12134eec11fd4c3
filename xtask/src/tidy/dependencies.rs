//! Licences, sources and duplicate versions of all dependencies, held against `deny.toml`.
//!
//! The same questions as `cargo deny check bans licenses sources`, for machines without cargo-deny.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, ParseMode};

/// How the index of the public registry is called, whatever mirror serves it.
const PUBLIC_INDEX: &str = "/crates.io-index";

/// The part of `deny.toml` that is enforced here.
#[derive(Debug, Deserialize)]
pub struct Policy {
    pub graph: Graph,
    licenses: Licenses,
    bans: Bans,
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

impl Policy {
    pub fn parse(deny: &str) -> Result<Self> {
        toml::from_str(deny).context("deny.toml does not parse")
    }

    /// Returns one sentence per violation.
    pub fn faults(&self, packages: &[Resolved]) -> Vec<String> {
        let mut faults: Vec<_> = packages
            .iter()
            .filter(|package| package.source.is_some())
            .flat_map(|package| self.package_faults(package))
            .collect();
        faults.extend(self.duplicate_faults(packages));
        faults
    }

    fn package_faults(&self, package: &Resolved) -> Vec<String> {
        let Resolved { name, version, license, source } = package;
        let mut faults = Vec::new();
        if let Some(banned) = self.bans.deny.iter().find(|banned| banned.name == *name) {
            faults.push(format!("{name} {version} is banned: {}", banned.reason));
        }
        let license = license.as_deref().unwrap_or_default();
        if !self.allows_license(license) {
            faults.push(format!(
                "{name} {version} has the licence \"{license}\", which deny.toml does not allow"
            ));
        }
        let source = source.as_deref().unwrap_or_default();
        if !(source.starts_with("registry+") && source.ends_with(PUBLIC_INDEX)) {
            faults.push(format!(
                "{name} {version} comes from {source}, not from the public registry"
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

    fn duplicate_faults(&self, packages: &[Resolved]) -> Vec<String> {
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
                "{name} is in the tree in several versions ({}); unify them, or add one to `skip` in deny.toml",
                versions.join(", ")
            )
        };
        duplicates.map(fault).collect()
    }
}

/// The packages of `cargo metadata`'s resolved graph.
pub fn resolved(metadata: &Value) -> Vec<Resolved> {
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let ids: Vec<_> = nodes.filter_map(|node| node["id"].as_str()).collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let used =
        packages.filter(|package| package["id"].as_str().is_some_and(|id| ids.contains(&id)));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    used.map(|package| Resolved {
        name: text(&package["name"]).unwrap_or_default(),
        version: text(&package["version"]).unwrap_or_default(),
        license: text(&package["license"]),
        source: text(&package["source"]),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "registry+https://example.com/crates.io-index";

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
            source: Some(PUBLIC.to_owned()),
        }
    }

    #[test]
    fn license_expressions_are_evaluated() {
        for allowed in
            ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "Apache-2.0 WITH LLVM-exception OR GPL-3.0"]
        {
            assert!(policy().faults(&[package("a", "1.0.0", allowed)]).is_empty(), "{allowed}");
        }
        for refused in ["GPL-3.0", "MIT AND GPL-3.0", "", "no licence"] {
            assert_eq!(policy().faults(&[package("a", "1.0.0", refused)]).len(), 1, "{refused}");
        }
    }

    #[test]
    fn foreign_source_and_banned_crate_are_violations() {
        let git = Resolved {
            source: Some("git+https://git.example/a".to_owned()),
            ..package("a", "1.0.0", "MIT")
        };
        assert_eq!(policy().faults(&[git]).len(), 1);
        assert_eq!(policy().faults(&[package("openssl", "1.0.0", "MIT")]).len(), 1);
    }

    #[test]
    fn new_duplicate_version_is_a_violation() {
        let known = [package("base64", "0.21.7", "MIT"), package("base64", "0.22.1", "MIT")];
        assert!(policy().faults(&known).is_empty());
        let new = [package("http", "0.2.12", "MIT"), package("http", "1.5.0", "MIT")];
        let faults = policy().faults(&new);
        assert!(faults.len() == 1 && faults[0].contains("0.2.12, 1.5.0"), "{faults:?}");
    }
}
