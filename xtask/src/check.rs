//! `cargo xtask check`: format, tidy, clippy and unit tests, without any server.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::checks::{self, Check, cargo};
use crate::steps::Steps;

pub async fn run() -> Result<ExitCode> {
    let started = Instant::now();
    let unit_tests = ["test", "--workspace", "--all-features", "--lib", "--bins", "--no-fail-fast"];
    let mut checks = checks::of_sources()?;
    checks.push(Check::new("unit tests", cargo("unit tests", &unit_tests)));
    checks::run_all(&Steps::new(), checks, started).await
}
