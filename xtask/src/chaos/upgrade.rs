//! `cargo xtask chaos upgrade`: a rolling update from another program to this one, and back.

mod balancer;
mod calls;
mod fleet;
mod load;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use greenroom_testkit::{paths, sleep_for};
use tokio::sync::Notify;

use self::calls::Calls;
use self::fleet::Fleet;
use self::load::Load;
use self::verdict::PhaseStart;
use crate::components::{self, Postgres};
use crate::service;
use crate::steps::{Steps, seconds};

/// Minimum time for which the replicas of a phase run side by side. A join window passes in it.
const PHASE_DURATION: Duration = Duration::from_secs(40);

/// Maximum delay of a deadline while all replicas have the same version.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// Maximum delay of a deadline while two versions run, or one replica is replaced.
const MAX_DELAY_MIXED: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Upgrade {
    /// The `greenroom` program of the previous version.
    #[arg(long, value_name = "PROGRAM")]
    from: PathBuf,
}

struct Run {
    steps: Arc<Steps>,
    /// The programs of the previous and of this version.
    old: PathBuf,
    new: PathBuf,
    fleet: Fleet,
    load: Arc<Load>,
    calls: Calls,
    phases: Vec<PhaseStart>,
}

/// What happens at the beginning of a phase.
enum Change<'a> {
    Nothing,
    Migrate(&'a Path, &'static [&'static str]),
    Replace(usize, &'a Path),
}

pub async fn run(arguments: Upgrade) -> Result<ExitCode> {
    let started = Instant::now();
    print_line!("Components\n");
    let steps = Arc::new(Steps::new());
    let old = std::path::absolute(&arguments.from)?;
    let (postgres, (), new) = tokio::try_join!(
        Postgres::for_tests(&steps),
        components::python(&steps),
        service::build(&steps)
    )?;
    let home = paths::target_dir().join("chaos-upgrade");
    std::fs::remove_dir_all(&home).ok();
    print_line!("\nPhases{:>19}\n", "took");
    let fleet = Fleet::start(postgres.url.clone(), &old, home).await?;
    let load = Arc::new(Load::new(fleet.balancer.clone(), fleet.livekit()).await?);
    let calls = Calls::start(&load).await.context("failed to start the sessions")?;
    let mut run = Run { steps, old, new, fleet, load, calls, phases: Vec::new() };
    let passed = run.run().await;
    run.fleet.write_logs()?;
    let took = seconds(started.elapsed());
    let passed = passed?;
    let result = if passed { "nothing was lost" } else { "failed, see target/chaos-upgrade" };
    print_line!("\n{result}, in {took}");
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Run {
    async fn run(&mut self) -> Result<bool> {
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let load = self.load.clone();
        let trickle = tokio::task::spawn_local(load.run(async move { stopped.notified().await }));
        let walked = self.walk().await;
        stop.notify_one();
        trickle.await?;
        walked?;
        self.calls.end().await;
        self.load.record(verdict::wait_for_ends(&self.fleet, &self.load).await);
        print_line!("\nResults\n");
        verdict::print(&self.steps, &self.fleet, &self.load, &self.phases).await
    }

    /// Goes from the old version to the new one, back, and to the new one again.
    async fn walk(&mut self) -> Result<()> {
        let (old, new) = (self.old.clone(), self.new.clone());
        let (old, new) = (old.as_path(), new.as_path());
        self.phase("old", MAX_DELAY, Change::Nothing).await?;
        self.phase("migrated", MAX_DELAY, Change::Migrate(new, &[])).await?;
        self.phase("mixed", MAX_DELAY_MIXED, Change::Replace(1, new)).await?;
        self.fleet.replace(0, new).await?;
        self.phase("new", MAX_DELAY, Change::Nothing).await?;
        self.phase("mixed back", MAX_DELAY_MIXED, Change::Replace(0, old)).await?;
        self.fleet.replace(1, old).await?;
        self.phase("old again", MAX_DELAY, Change::Nothing).await?;
        let revert = Change::Migrate(new, &["--revert", "1", "--yes"]);
        self.phase("reverted", MAX_DELAY, revert).await?;
        self.fleet.migrate(new, &[]).await?;
        self.phase("mixed again", MAX_DELAY_MIXED, Change::Replace(0, new)).await?;
        self.fleet.replace(1, new).await?;
        self.phase("new again", MAX_DELAY, Change::Nothing).await
    }

    async fn phase(
        &mut self,
        name: &'static str,
        max_delay: Duration,
        change: Change<'_>,
    ) -> Result<()> {
        let (begun, before) = (Instant::now(), self.load.counts());
        let violations = self.load.violations().len();
        self.load.set_phase(name);
        let is_new = matches!(name, "new" | "new again");
        self.phases.push(PhaseStart { name, at: self.fleet.now().await?, max_delay, is_new });
        match change {
            Change::Nothing => {}
            Change::Migrate(program, arguments) => self.fleet.migrate(program, arguments).await?,
            Change::Replace(replica, program) => self.fleet.replace(replica, program).await?,
        }
        let settled = Instant::now();
        self.calls.check().await;
        self.calls.change().await?;
        sleep_for(PHASE_DURATION.saturating_sub(settled.elapsed())).await?;
        self.calls.check().await;
        let (starts, retries) = self.load.counts();
        let summary = format!("{:>3} starts {:>4} retries", starts - before.0, retries - before.1);
        let passed = self.load.violations().len() == violations;
        self.steps.ended(passed, name, begun.elapsed(), &summary);
        Ok(())
    }
}
