//! Commands, and the guard they are started under.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::Process;
use crate::place::Owner;

/// The shell that holds the command. It, not we, does the killing: a process that was sent SIGKILL
/// runs no destructor.
const GUARD: &str = include_str!("guard.sh");

/// A command to start, with what it takes to stop it.
#[derive(Debug)]
pub struct Guarded {
    name: String,
    command: Vec<OsString>,
    log: PathBuf,
    home: Option<PathBuf>,
    environment: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    owner: Option<Owner>,
    stop: &'static str,
    patience: Duration,
}

impl Guarded {
    /// A command whose output is appended to `log`; stopping it means SIGTERM and, five seconds
    /// later, SIGKILL.
    #[must_use]
    pub fn new(name: &str, program: impl AsRef<OsStr>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            command: vec![program.as_ref().to_owned()],
            log: log.into(),
            home: None,
            environment: Vec::new(),
            directory: None,
            owner: None,
            stop: "TERM",
            patience: Duration::from_secs(5),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment, which is else ours.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable out of the environment.
    #[must_use]
    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), None));
        self
    }

    /// Runs it in this directory.
    #[must_use]
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Runs it as somebody else, which only root can.
    #[must_use]
    pub fn as_owner(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }

    /// Stops it with this signal (`INT`, `KILL`, …) and this much time before SIGKILL.
    #[must_use]
    pub fn stopped_by(mut self, signal: &'static str, patience: Duration) -> Self {
        self.stop = signal;
        self.patience = patience;
        self
    }

    /// Removes this directory once the command was stopped. One that died by itself leaves it, with
    /// the log.
    #[must_use]
    pub fn removing(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When there is no `sh`, or the log cannot be written. A command that cannot be run shows as
    /// one that ended.
    pub fn start(self) -> Result<Process> {
        let log = open_log(&self.log)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", GUARD, &format!("guard-of-{}", self.name), self.stop]);
        shell.arg((self.patience.as_millis() / 100).to_string());
        shell.arg(self.home.as_deref().unwrap_or(Path::new(""))).args(&self.command);
        for (name, value) in &self.environment {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            shell.current_dir(directory);
        }
        if let Some(owner) = self.owner {
            shell.gid(owner.gid).uid(owner.uid);
        }
        // A group of its own: Ctrl-C in a terminal reaches us alone, and we stop our children in
        // our own order.
        shell.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let guard = shell.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(Process { name: self.name, log: self.log, home: self.home, guard })
    }

    /// Runs it to its end, blocking, and returns its output.
    ///
    /// # Errors
    /// When it cannot be started or its status is not zero; the message ends with its last lines.
    pub fn run(self) -> Result<String> {
        let mut process = self.start()?;
        process.guard_ended_by_itself()?;
        if process.succeeded() {
            return Ok(process.output());
        }
        bail!(process.epitaph("failed"))
    }
}

fn open_log(log: &Path) -> Result<File> {
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(log);
    opened.with_context(|| format!("cannot write {}", log.display()))
}
