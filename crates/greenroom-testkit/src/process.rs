//! Child processes that stop when this process ends, even if it is killed.

mod guarded_command;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use self::guarded_command::GuardedCommand;

/// Start of the last line of the log, which the guard writes when the command has exited.
const EXIT_LINE_PREFIX: &str = "[exited with status ";

/// Number of log lines that an error message about a failed process contains.
const LOG_TAIL_LINES: usize = 12;

/// A running command. Dropping it stops the command and waits until it has exited.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    temp_dir: Option<PathBuf>,
    /// The shell that runs `guard.sh`, the parent of the command.
    guard: Child,
}

impl Process {
    /// Returns the file to which the output is appended.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the process id of the guard, which is the parent of the command.
    #[must_use]
    pub fn guard_id(&self) -> u32 {
        self.guard.id()
    }

    /// Returns the output so far, after everything that was in the log file before the start.
    #[must_use]
    pub fn output(&self) -> String {
        let mut output = self.log_text();
        let last_line = output.trim_end().rfind('\n').map_or(0, |newline| newline + 1);
        if let Some(at) = output[last_line..].find(EXIT_LINE_PREFIX) {
            output.truncate(last_line + at);
        }
        output
    }

    /// Returns the output and the lines that the guard adds.
    fn log_text(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the process has exited, by itself or because of a signal.
    #[must_use]
    pub fn has_exited(&mut self) -> bool {
        !matches!(self.guard.try_wait(), Ok(None))
    }

    /// Whether the process has exited with status 0.
    #[must_use]
    pub fn succeeded(&mut self) -> bool {
        // The guard's own status is useless: the guard kills itself together with its process
        // group. It writes the command's status to the log instead.
        self.has_exited() && self.log_text().trim_end().ends_with(&format!("{EXIT_LINE_PREFIX}0]"))
    }

    /// Checks that the process is running.
    ///
    /// # Errors
    /// Returns an error with the last lines of the log if the process has exited.
    pub fn ensure_running(&mut self) -> Result<()> {
        if self.has_exited() {
            bail!(self.failure_message("exited early"));
        }
        Ok(())
    }

    /// Sends a signal by its name and waits up to five seconds until it was sent. `STOP` makes the
    /// process hang, and `CONT` makes it continue.
    ///
    /// # Errors
    /// Returns an error if the process is not running.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let sent_line = format!("[sent {signal}]");
        let sent_before = self.log_text().matches(&sent_line).count();
        self.request_signal(signal)?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.log_text().matches(&sent_line).count() == sent_before {
            if Instant::now() > deadline {
                bail!("failed to send the signal {signal} to {}", self.name);
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn request_signal(&self, signal: &str) -> Result<()> {
        let mut pipe =
            self.guard.stdin.as_ref().with_context(|| format!("{} was stopped", self.name))?;
        writeln!(pipe, "{signal}").with_context(|| format!("{} is not running", self.name))
    }

    /// Sends a signal that ends the process, and blocks until the process and its children have
    /// exited. The directory of [`GuardedCommand::remove_on_stop`] is kept.
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn terminate_with(mut self, signal: &str) -> Result<()> {
        // Writing fails if the process has already exited. Then no signal is needed.
        let _ = self.request_signal(signal);
        self.wait_for_guard().map(drop)
    }

    /// Kills the process and its children, blocks until they have exited, and removes the directory
    /// of [`GuardedCommand::remove_on_stop`].
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn kill(mut self) -> Result<()> {
        let temp_dir = self.temp_dir.take();
        self.terminate_with("KILL")?;
        if let Some(temp_dir) = temp_dir {
            std::fs::remove_dir_all(temp_dir).ok();
        }
        Ok(())
    }

    /// Waits until the guard exits by itself. `Child::wait` closes the guard's standard input
    /// first, and the guard would then stop the command, so the pipe is kept open meanwhile.
    fn wait_for_guard(&mut self) -> Result<ExitStatus> {
        let pipe = self.guard.stdin.take();
        let status = self.guard.wait();
        drop(pipe);
        status.with_context(|| format!("failed to wait for {}", self.name))
    }

    fn failure_message(&self, failure: &str) -> String {
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n    ");
        format!("{} {failure}; the end of {}:\n    {tail}", self.name, self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
