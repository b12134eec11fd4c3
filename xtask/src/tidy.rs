//! `cargo xtask tidy`: the rules of the house that a compiler does not know.

mod edges;
mod sources;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::place;
use serde_json::Value;

use self::edges::{Dependency, Kind, Package};

pub fn run() -> Result<ExitCode> {
    let mut faults = edges::faults(&packages()?);
    let files = tracked_files()?;
    for file in &files {
        faults.extend(sources::name_faults(file));
        // What is no text (a picture) has no lines to hold against a rule.
        if let Ok(text) = std::fs::read_to_string(place::workspace().join(file)) {
            faults.extend(sources::text_faults(file, &text));
        }
    }
    for fault in &faults {
        println!("{fault}");
    }
    if faults.is_empty() {
        println!("{} files and the edges between the crates are as they should be", files.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("faults: {}", faults.len());
    Ok(ExitCode::FAILURE)
}

/// The crates of the workspace with what their manifests name, without what that brings in turn.
fn packages() -> Result<Vec<Package>> {
    let metadata: Value = serde_json::from_str(&output(
        "cargo",
        &["metadata", "--format-version=1", "--no-deps", "--locked"],
    )?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    Ok(packages.iter().map(package).collect())
}

fn package(package: &Value) -> Package {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Package {
        name: text(&package["name"]),
        dependencies: dependencies
            .map(|dependency| Dependency {
                name: text(&dependency["name"]),
                kind: if dependency["kind"] == "dev" { Kind::Test } else { Kind::Program },
                local: dependency["path"].is_string(),
            })
            .collect(),
    }
}

/// What git has or would take: not what is ignored.
fn tracked_files() -> Result<Vec<String>> {
    let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    Ok(listed
        .lines()
        .map(str::to_owned)
        .filter(|file| place::workspace().join(file).exists())
        .collect())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(place::workspace()).output();
    let output = output.with_context(|| format!("{program} is missing: install it"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
