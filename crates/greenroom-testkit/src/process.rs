//! Child processes that cannot outlive us, not even when we are killed.

mod guarded;

pub use guarded::Guarded;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How the last line begins that the guard writes.
const ENDED: &str = "[ended with status ";

/// How many lines of a log are shown when its process died.
const LAST_WORDS: usize = 12;

/// A running command. Dropping it stops it and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    home: Option<PathBuf>,
    guard: Child,
}

impl Process {
    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written so far, with what was in the log before.
    #[must_use]
    pub fn output(&self) -> String {
        let mut output = self.whole_log();
        let last_line = output.trim_end().rfind('\n').map_or(0, |newline| newline + 1);
        if let Some(at) = output[last_line..].find(ENDED) {
            output.truncate(last_line + at);
        }
        output
    }

    /// The output, with what the guard adds to it.
    fn whole_log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it has ended, by itself or by a signal.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.guard.try_wait(), Ok(None))
    }

    /// Whether it has ended with status zero.
    #[must_use]
    pub fn succeeded(&mut self) -> bool {
        // The guard tells it: its own status is that of the signal with which it ends its group.
        self.has_ended() && self.whole_log().trim_end().ends_with(&format!("{ENDED}0]"))
    }

    /// Fails with its last lines when it has ended.
    ///
    /// # Errors
    /// When it is not running.
    pub fn check(&mut self) -> Result<()> {
        if self.has_ended() {
            bail!(self.epitaph("ended early"));
        }
        Ok(())
    }

    /// Sends it a signal by name, and returns when that is done: `STOP` and `CONT` make it hang and
    /// go on.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let sent = format!("[sent {signal}]");
        let sent_before = self.whole_log().matches(&sent).count();
        self.ask_for(signal)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.whole_log().matches(&sent).count() == sent_before {
            if Instant::now() > deadline {
                bail!("{} could not be sent {signal}", self.name);
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn ask_for(&self, signal: &str) -> Result<()> {
        let mut pipe = self.guard.stdin.as_ref().context("it was stopped before")?;
        writeln!(pipe, "{signal}").with_context(|| format!("{} is not running", self.name))
    }

    /// Sends it a signal that ends it and waits, blocking, until it and all it had started are
    /// gone. Nothing is removed.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn end_by(mut self, signal: &str) -> Result<()> {
        // It may have ended before: then the pipe is broken, and there is nothing to signal.
        let _ = self.ask_for(signal);
        self.guard_ended_by_itself().map(drop)
    }

    /// Kills it and all it had started, waits, blocking, until they are gone, and clears away what
    /// it leaves.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn kill(mut self) -> Result<()> {
        let home = self.home.take();
        self.end_by("KILL")?;
        if let Some(home) = home {
            std::fs::remove_dir_all(home).ok();
        }
        Ok(())
    }

    /// Waits without closing the guard's standard input, which `Child::wait` would do: the end of
    /// input means "stop".
    fn guard_ended_by_itself(&mut self) -> Result<ExitStatus> {
        let pipe = self.guard.stdin.take();
        let status = self.guard.wait();
        drop(pipe);
        status.with_context(|| format!("cannot wait for {}", self.name))
    }

    fn epitaph(&self, fate: &str) -> String {
        let output = self.whole_log();
        let lines: Vec<&str> = output.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n    ");
        format!("{} {fate}; {} says:\n    {last}", self.name, self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
