//! `cargo xtask tidy`: repository rules that the compiler does not know.

mod dependencies;
mod edges;
mod language;
mod prose;
mod sources;
mod unused;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::paths;
use serde_json::Value;

use self::dependencies::{LockFile, Policy};
use self::edges::{Dependency, Kind, Package};
use self::language::Language;

pub fn run() -> Result<ExitCode> {
    let files = tracked_files()?;
    let policy = Policy::parse(&read("deny.toml")?)?;
    let lock_file = LockFile::parse(&read("Cargo.lock")?);
    let metadata = metadata()?;
    let tree = dependency_tree(&policy.graph.targets)?;
    let mut faults = text_faults(&files)?;
    faults.extend(manifest_faults(&metadata, &files)?);
    faults.extend(policy.faults(&dependencies::resolved(&metadata, &tree), &lock_file));
    for fault in &faults {
        print_line!("{fault}");
    }
    if faults.is_empty() {
        print_line!("{} files and all manifests follow the rules", files.len());
        return Ok(ExitCode::SUCCESS);
    }
    print_line!("violations: {}", faults.len());
    Ok(ExitCode::FAILURE)
}

/// Checks file names, sources and language.
fn text_faults(files: &[String]) -> Result<Vec<String>> {
    let language = Language::new()?;
    let mut faults = Vec::new();
    for file in files {
        faults.extend(sources::name_faults(file));
        // Binary files (pictures) have no lines to check.
        if let Ok(text) = std::fs::read_to_string(paths::workspace_root().join(file)) {
            faults.extend(sources::text_faults(file, &text));
            faults.extend(language.faults(file, &text));
        }
    }
    Ok(faults)
}

/// Checks which crates each manifest names, and that its sources use them.
fn manifest_faults(metadata: &Value, files: &[String]) -> Result<Vec<String>> {
    let members: Vec<_> = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?
        .iter()
        .filter(|package| package["source"].is_null())
        .collect();
    let packages: Vec<_> = members.iter().map(|member| package(member)).collect::<Result<_>>()?;
    let mut faults = edges::faults(&packages);
    for (member, package) in members.iter().zip(&packages) {
        let sources = sources_of(member, files)?;
        let ignored = member["metadata"]["cargo-machete"]["ignored"].as_array();
        let ignored: Vec<_> =
            ignored.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        faults.extend(unused::faults(package, &ignored, |name| unused::mentions(&sources, name)));
    }
    Ok(faults)
}

/// The text of all Rust files of a workspace member.
fn sources_of(member: &Value, files: &[String]) -> Result<String> {
    let manifest = manifest_path(member)?;
    let directory = Path::new(&manifest).parent().context("a manifest has no directory")?;
    let own = |file: &&String| {
        let path = Path::new(file.as_str());
        path.starts_with(directory) && path.extension().is_some_and(|extension| extension == "rs")
    };
    files.iter().filter(own).map(|file| read(file)).collect()
}

/// The manifest of a workspace member, relative to the workspace.
fn manifest_path(member: &Value) -> Result<String> {
    let manifest = Path::new(member["manifest_path"].as_str().unwrap_or_default());
    Ok(manifest.strip_prefix(paths::workspace_root())?.display().to_string())
}

fn read(file: &str) -> Result<String> {
    let text = std::fs::read_to_string(paths::workspace_root().join(file));
    text.with_context(|| format!("failed to read {file}"))
}

/// `cargo metadata` of the workspace and its dependencies.
fn metadata() -> Result<Value> {
    let arguments = ["metadata", "--format-version=1", "--locked", "--all-features"];
    Ok(serde_json::from_str(&output("cargo", &arguments)?)?)
}

/// `cargo tree` of the workspace on these platforms: one package per line. `cargo metadata` would
/// also list optional dependencies that no feature enables.
fn dependency_tree(targets: &[String]) -> Result<String> {
    let mut arguments =
        vec!["tree", "--workspace", "--locked", "--all-features", "--prefix=none", "--format={p}"];
    for target in targets {
        arguments.extend(["--target", target]);
    }
    output("cargo", &arguments)
}

fn package(member: &Value) -> Result<Package> {
    let manifest = manifest_path(member)?;
    let manifest_text = read(&manifest)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dependency = |dependency: &Value| {
        let name = text(&dependency["name"]);
        let kind = if dependency["kind"] == "dev" { Kind::Test } else { Kind::Program };
        let line = edges::line_of(&manifest_text, &name, kind);
        Dependency { name, kind, line, local: dependency["path"].is_string() }
    };
    let dependencies = member["dependencies"].as_array().into_iter().flatten();
    let dependencies = dependencies.map(dependency).collect();
    Ok(Package { name: text(&member["name"]), manifest, dependencies })
}

/// Files that git tracks or would add.
fn tracked_files() -> Result<Vec<String>> {
    let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    Ok(listed
        .lines()
        .map(str::to_owned)
        .filter(|file| paths::workspace_root().join(file).exists())
        .collect())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).current_dir(paths::workspace_root()).output();
    let output = output.with_context(|| format!("{program} is missing; install it"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
