//! Builder for commands that run under the guard script.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Process;
use crate::unix_user::UnixUser;

/// The shell script that runs the command and stops it. A separate process must do this, because a
/// process that receives SIGKILL runs no destructors.
const GUARD_SCRIPT: &str = include_str!("guard.sh");

/// A command to start, and how to stop it.
#[derive(Debug)]
pub struct GuardedCommand {
    name: String,
    command: Vec<OsString>,
    log: PathBuf,
    temp_dir: Option<PathBuf>,
    /// `None` as a value removes the variable.
    environment: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    user: Option<UnixUser>,
    stop_signal: &'static str,
    grace_period: Duration,
}

impl GuardedCommand {
    /// Describes a command that appends its output to `log`, creating the file if necessary.
    /// Unless [`Self::stop_signal`] changes this, stopping sends SIGTERM and, five seconds later,
    /// SIGKILL.
    #[must_use]
    pub fn new(name: &str, program: impl AsRef<OsStr>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            command: vec![program.as_ref().to_owned()],
            log: log.into(),
            temp_dir: None,
            environment: Vec::new(),
            directory: None,
            user: None,
            stop_signal: "TERM",
            grace_period: Duration::from_secs(5),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. All others are inherited from this process.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes an inherited environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), None));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Runs the command as another user, which requires root. `None` means the current user.
    #[must_use]
    pub fn run_as(mut self, user: Option<UnixUser>) -> Self {
        self.user = user;
        self
    }

    /// Sets the signal (`INT`, `KILL`, …) that stops the command, and the time until SIGKILL
    /// follows. The time is rounded down to tenths of a second.
    #[must_use]
    pub fn stop_signal(mut self, signal: &'static str, grace_period: Duration) -> Self {
        self.stop_signal = signal;
        self.grace_period = grace_period;
        self
    }

    /// Removes this directory after the command was stopped. The directory, and a log in it, is
    /// kept if the command exits by itself.
    #[must_use]
    pub fn remove_on_stop(mut self, directory: impl Into<PathBuf>) -> Self {
        self.temp_dir = Some(directory.into());
        self
    }

    /// Starts the command. If the program cannot be run, `start` still succeeds and the process
    /// exits at once.
    ///
    /// # Errors
    /// Returns an error if `/bin/sh` is missing or the log cannot be written.
    pub fn start(self) -> Result<Process> {
        let log = open_log(&self.log)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", GUARD_SCRIPT, &format!("guard-of-{}", self.name), self.stop_signal]);
        shell.arg((self.grace_period.as_millis() / 100).to_string());
        shell.arg(self.temp_dir.as_deref().unwrap_or(Path::new(""))).args(&self.command);
        for (name, value) in &self.environment {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            shell.current_dir(directory);
        }
        if let Some(user) = self.user {
            shell.gid(user.gid).uid(user.uid);
        }
        // A separate process group keeps Ctrl-C in a terminal away from the children, so that this
        // process can stop them in its own order.
        shell.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let guard = shell.spawn().with_context(|| format!("failed to start {}", self.name))?;
        Ok(Process { name: self.name, log: self.log, temp_dir: self.temp_dir, guard })
    }

    /// Runs the command, blocks until it exits, and returns its output.
    ///
    /// # Errors
    /// Returns an error if the command cannot be started or its status is not 0. The message ends
    /// with the last lines of the log.
    pub fn run(self) -> Result<String> {
        let mut process = self.start()?;
        process.wait_for_guard()?;
        if process.succeeded() {
            return Ok(process.output());
        }
        bail!(process.failure_message("failed"))
    }
}

fn open_log(log: &Path) -> Result<File> {
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(log);
    opened.with_context(|| format!("failed to open the log {}", log.display()))
}
