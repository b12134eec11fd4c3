//! The `greenroom` program: how to build and start it, and access to the running process.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::process::{GuardedCommand, Process};
use greenroom_testkit::{caller, paths, ports, random_hex, wait_until};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::env;
use crate::steps::Steps;

/// Maximum time from the start of the process until `/readyz` returns 200.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// The port on which `greenroom serve` listens by default.
const DEFAULT_PORT: u16 = 8080;

/// Origins of the development servers of common front-end tools.
const DEVELOPMENT_ORIGINS: &str = "http://localhost:3000,http://localhost:5173";

/// File with the settings of the service, for `greenroom doctor` and other commands.
pub const SETTINGS_FILE: &str = "greenroom.env";

/// A running `greenroom serve`. Dropping it stops the process.
pub struct Service {
    address: String,
    secret: String,
    process: Mutex<Process>,
}

/// Builds the program and returns its path.
///
/// Also builds the examples: they need the dev-dependencies, so the shared dependencies get the same
/// features as in `cargo test --workspace --all-features` and are compiled once for both.
pub async fn build(steps: &Steps) -> Result<PathBuf> {
    const ARGUMENTS: &[&str] =
        &["--workspace", "--all-features", "--bin", "greenroom", "--examples"];
    run_build(steps, ARGUMENTS, "compiling, takes minutes the first time", "built").await
}

/// Builds the program with optimizations and returns its path.
pub async fn build_released(steps: &Steps) -> Result<PathBuf> {
    const ARGUMENTS: &[&str] = &["--package", "greenroom", "--release"];
    let progress = "compiling with optimizations, takes a quarter of an hour the first time";
    run_build(steps, ARGUMENTS, progress, "release build").await
}

async fn run_build(
    steps: &Steps,
    arguments: &'static [&'static str],
    progress: &str,
    summary: &str,
) -> Result<PathBuf> {
    steps
        .run("Greenroom", progress, async {
            let log = paths::target_dir().join("dev/build.log");
            let built = tokio::task::spawn_blocking(move || build_blocking(arguments, log));
            Ok((built.await??, summary.to_owned()))
        })
        .await
}

/// Returns a `cargo` command as if it were started from a shell in the root of the repository.
pub fn cargo(name: &str, log: PathBuf) -> GuardedCommand {
    let command = GuardedCommand::new(name, "cargo", log).current_dir(paths::workspace_root());
    let inherited = env::names().into_iter().filter(|name| env::is_set_by_cargo(name));
    inherited.fold(command, GuardedCommand::env_remove)
}

fn build_blocking(arguments: &[&str], log: PathBuf) -> Result<PathBuf> {
    std::fs::remove_file(&log).ok();
    let output = cargo("cargo-build", log)
        .args(["build"])
        .args(arguments)
        .args(["--message-format=json-render-diagnostics"])
        .run()?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "greenroom")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    output.lines().find_map(executable).context("cargo reported no program named greenroom")
}

/// Runs `PROGRAM migrate` with these arguments.
pub async fn migrate(
    program: PathBuf,
    database_url: String,
    log: PathBuf,
    arguments: &'static [&'static str],
) -> Result<()> {
    let command = without_inherited_settings(GuardedCommand::new("greenroom", program, log))
        .args(["migrate"])
        .args(arguments)
        .env("DATABASE_URL", database_url);
    tokio::task::spawn_blocking(|| command.run()).await?.map(drop)
}

impl Service {
    /// Starts the service as a step. Its log, settings and secret are in the directory `home`.
    pub async fn start(
        steps: &Steps,
        program: PathBuf,
        port: u16,
        database_url: &str,
        livekit: &Server,
        home: &Path,
    ) -> Result<Self> {
        steps
            .run("Service", "waiting for /readyz", async {
                let service = Self::launch(program, port, database_url, livekit, home, &[]).await?;
                let summary = service.url("");
                Ok((service, summary))
            })
            .await
    }

    /// Starts the service with `extra` settings in addition to the required ones, and waits until
    /// `/readyz` returns 200.
    pub async fn launch(
        program: PathBuf,
        port: u16,
        database_url: &str,
        livekit: &Server,
        home: &Path,
        extra: &[(&str, &str)],
    ) -> Result<Self> {
        let address = format!("127.0.0.1:{port}");
        std::fs::create_dir_all(home)?;
        let secret = load_or_create_secret(&home.join("jwt-secret"))?;
        let log = home.join("greenroom.log");
        std::fs::remove_file(&log).ok();
        let required = [
            ("GREENROOM_LISTEN", address.as_str()),
            ("GREENROOM_CORS_ORIGINS", DEVELOPMENT_ORIGINS),
            ("DATABASE_URL", database_url),
            ("LIVEKIT_URL", livekit.url()),
            ("LIVEKIT_API_KEY", livekit.api_key()),
            ("LIVEKIT_API_SECRET", livekit.api_secret()),
            ("AUTH_JWT_SECRET", &secret),
        ];
        let settings = [&required, extra].concat();
        let lines = settings.iter().map(|(name, value)| format!("{name}='{value}'\n"));
        let lines = lines.collect::<Vec<_>>().concat();
        write_private_file(&home.join(SETTINGS_FILE), &lines)?;
        let mut process = settings
            .iter()
            .fold(
                without_inherited_settings(GuardedCommand::new("greenroom", program, log)),
                |command, (name, value)| command.env(name, value),
            )
            .args(["serve"])
            .env("NO_COLOR", "1")
            .start()?;
        wait_until_ready(&mut process, &address).await?;
        Ok(Self { address, secret, process: Mutex::new(process) })
    }

    /// Kills the process with SIGKILL, also during requests.
    pub async fn kill(self) -> Result<()> {
        let process = self.process.into_inner();
        tokio::task::spawn_blocking(move || process.kill()).await?
    }

    /// Stops the process with SIGTERM, and waits until it has exited.
    pub async fn terminate(self) -> Result<()> {
        let process = self.process.into_inner();
        tokio::task::spawn_blocking(move || process.terminate_with("TERM")).await?
    }

    /// Sends a signal by its name without `SIG`, such as `STOP` and `CONT`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.with_process(|process| process.signal(signal))
    }

    /// Returns the `host:port` on which the service listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the URL of a route.
    pub fn url(&self, route: &str) -> String {
        format!("http://{}{route}", self.address)
    }

    /// Returns a token of a backend of this organization.
    pub fn token_of(&self, organization: Uuid) -> String {
        caller::backend_token(&self.secret, organization)
    }

    /// Returns a token of an end user of this organization.
    pub fn token_of_user(&self, organization: Uuid, user: &str) -> String {
        let expiry = caller::seconds_from_now(3_600);
        let claims = json!({ "org_id": organization, "user_id": user, "exp": expiry });
        caller::token(&self.secret, &claims)
    }

    /// Returns the path of the log, relative to the root of the repository if the log is inside it.
    pub fn log(&self) -> String {
        self.with_process(|process| {
            let log = process.log();
            log.strip_prefix(paths::workspace_root()).unwrap_or(log).display().to_string()
        })
    }

    /// Returns the id of the service's process, which the service logs. The direct child process of
    /// xtask is the guard.
    pub fn pid(&self) -> Result<u32> {
        let output = self.with_process(|process| process.output());
        let listening = output.lines().find(|line| line.contains("listening"));
        let pid = listening.and_then(|line| line.split_once("pid=")?.1.split_whitespace().next());
        pid.and_then(|pid| pid.parse().ok()).context("the log of the service contains no pid")
    }

    /// Counts the log lines that contain one of these messages.
    pub fn count_log_lines(&self, messages: &[&str]) -> usize {
        let output = self.with_process(|process| process.output());
        let has_message = |line: &&str| messages.iter().any(|message| line.contains(message));
        output.lines().filter(has_message).count()
    }

    /// Waits until the process exits, and returns an error with the end of its log.
    pub async fn wait_for_exit(&self) -> Error {
        loop {
            if let Err(exited) = self.with_process(Process::ensure_running) {
                return exited;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn with_process<T>(&self, call: impl FnOnce(&mut Process) -> T) -> T {
        call(&mut self.process.lock())
    }
}

async fn wait_until_ready(process: &mut Process, address: &str) -> Result<()> {
    let url = format!("http://{address}/readyz");
    let ready = wait_until("/readyz to return 200", READY_TIMEOUT, || {
        let has_exited = process.has_exited();
        let url = &url;
        async move {
            if has_exited {
                return Ok(Some(()));
            }
            let response = reqwest::get(url).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(Some(()));
            }
            anyhow::bail!("{status}: {}", response.text().await?)
        }
    })
    .await;
    process.ensure_running()?;
    ready
}

/// Removes the settings that the developer's shell may export for another deployment.
fn without_inherited_settings(program: GuardedCommand) -> GuardedCommand {
    let is_setting = |name: &String| {
        ["GREENROOM_", "DATABASE_", "LIVEKIT_", "AUTH_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    env::names().into_iter().filter(is_setting).fold(program, GuardedCommand::env_remove)
}

/// Returns the default port, or a free port if the default port is in use.
pub fn choose_port() -> Result<u16> {
    if TcpListener::bind(("127.0.0.1", DEFAULT_PORT)).is_ok() {
        Ok(DEFAULT_PORT)
    } else {
        ports::free_tcp_port()
    }
}

/// Returns the secret of the callers' tokens. It is kept in a file, so that a token of an earlier
/// run stays valid until it expires.
fn load_or_create_secret(file: &Path) -> Result<String> {
    // An interrupted write may have left an empty file.
    if let Some(secret) = std::fs::read_to_string(file).ok().filter(|secret| !secret.is_empty()) {
        return Ok(secret);
    }
    let secret = format!("{}{}{}", random_hex()?, random_hex()?, random_hex()?);
    write_private_file(file, &secret)?;
    Ok(secret)
}

/// Writes a file that only its owner can read.
fn write_private_file(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, "")?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
    Ok(std::fs::write(file, text)?)
}
