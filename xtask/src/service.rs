//! The program itself: built, started, ready.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::process::{Guarded, Process};
use greenroom_testkit::{caller, place, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::env;
use crate::steps::Steps;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// Where `greenroom serve` listens unless told otherwise.
const USUAL_PORT: u16 = 8080;

/// Where front ends are served while they are developed.
const PAGES: &str = "http://localhost:3000,http://localhost:5173";

/// The file with what it was configured by, for `greenroom doctor` and its like.
pub const SETTINGS: &str = "greenroom.env";

/// A running `greenroom serve`.
pub struct Service {
    address: String,
    secret: String,
    process: Mutex<Process>,
}

/// Builds the program and says where it is.
pub async fn build(steps: &Steps) -> Result<PathBuf> {
    let busy = "compiling, the first time some minutes";
    build_for(steps, "dev", busy, "built").await
}

/// Builds the program as it is released, and says where it is.
pub async fn build_released(steps: &Steps) -> Result<PathBuf> {
    let busy = "compiling as it is released, the first time a quarter of an hour";
    build_for(steps, "release", busy, "built as it is released").await
}

async fn build_for(
    steps: &Steps,
    profile: &'static str,
    busy: &str,
    said: &str,
) -> Result<PathBuf> {
    steps
        .run("Greenroom", busy, async {
            let log = place::target().join("dev/build.log");
            let built = tokio::task::spawn_blocking(move || build_blocking(profile, log));
            Ok((built.await??, said.to_owned()))
        })
        .await
}

/// A cargo as somebody would start it in the root of the repository.
pub fn cargo(name: &str, log: PathBuf) -> Guarded {
    let command = Guarded::new(name, "cargo", log).in_directory(place::workspace());
    let inherited = env::names().into_iter().filter(|name| env::is_of_cargo_run(name));
    inherited.fold(command, Guarded::without_env)
}

fn build_blocking(profile: &str, log: PathBuf) -> Result<PathBuf> {
    std::fs::remove_file(&log).ok();
    let output = cargo("cargo-build", log)
        .args(["build", "--package", "greenroom", "--profile", profile])
        .args(["--message-format=json-render-diagnostics"])
        .run()?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "greenroom")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    output.lines().find_map(executable).context("cargo built no program called greenroom")
}

impl Service {
    /// Starts it as a step. Its log and its secret are in `home`.
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
                let said = service.url("");
                Ok((service, said))
            })
            .await
    }

    /// Starts it, with more settings than it needs, and waits until it says that it is ready.
    pub async fn launch(
        program: PathBuf,
        port: u16,
        database_url: &str,
        livekit: &Server,
        home: &Path,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let address = format!("127.0.0.1:{port}");
        std::fs::create_dir_all(home)?;
        let secret = kept_secret(&home.join("jwt-secret"))?;
        let log = home.join("greenroom.log");
        std::fs::remove_file(&log).ok();
        let needed = [
            ("GREENROOM_LISTEN", address.as_str()),
            ("GREENROOM_CORS_ORIGINS", PAGES),
            ("DATABASE_URL", database_url),
            ("LIVEKIT_URL", livekit.url()),
            ("LIVEKIT_API_KEY", livekit.api_key()),
            ("LIVEKIT_API_SECRET", livekit.api_secret()),
            ("AUTH_JWT_SECRET", &secret),
        ];
        let settings = [&needed, more].concat();
        let written = settings.iter().map(|(name, text)| format!("{name}='{text}'\n"));
        let written = written.collect::<Vec<_>>().concat();
        write_privately(&home.join(SETTINGS), &written)?;
        let mut process = settings
            .iter()
            .fold(
                without_settings(Guarded::new("greenroom", program, log)),
                |command, (name, text)| command.env(name, text),
            )
            .args(["serve"])
            .env("NO_COLOR", "1")
            .start()?;
        ready(&mut process, &address).await?;
        Ok(Self { address, secret, process: Mutex::new(process) })
    }

    /// Kills it at once, in the middle of whatever it does.
    pub async fn kill(self) -> Result<()> {
        let process = self.process.into_inner().unwrap_or_else(PoisonError::into_inner);
        tokio::task::spawn_blocking(move || process.kill()).await?
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address of a route.
    pub fn url(&self, route: &str) -> String {
        format!("http://{}{route}", self.address)
    }

    /// The token of a backend of this organization.
    pub fn token_of(&self, organization: Uuid) -> String {
        caller::backend(&self.secret, organization)
    }

    /// The token of an end user of this organization.
    pub fn token_of_user(&self, organization: Uuid, user: &str) -> String {
        let claims =
            json!({ "org_id": organization, "user_id": user, "exp": caller::in_seconds(3_600) });
        caller::token(&self.secret, &claims)
    }

    /// Where it logs, seen from the root of the repository when it is inside.
    pub fn log(&self) -> String {
        self.with_process(|process| {
            let log = process.log();
            log.strip_prefix(place::workspace()).unwrap_or(log).display().to_string()
        })
    }

    /// The number of its process, which is not its guard's: it tells it itself.
    pub fn pid(&self) -> Result<u32> {
        let said = self.with_process(|process| process.output());
        let listening = said.lines().find(|line| line.contains("listening"));
        let pid = listening.and_then(|line| line.split_once("pid=")?.1.split_whitespace().next());
        pid.and_then(|pid| pid.parse().ok()).context("the service has not said its pid")
    }

    /// How many lines of its log say this.
    pub fn log_lines(&self, text: &str) -> usize {
        self.with_process(|process| process.output()).matches(text).count()
    }

    /// Ends, with its last words, if it ever does.
    pub async fn died(&self) -> Error {
        loop {
            if let Err(died) = self.with_process(Process::check) {
                return died;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn with_process<T>(&self, look: impl FnOnce(&mut Process) -> T) -> T {
        look(&mut self.process.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn ready(process: &mut Process, address: &str) -> Result<()> {
    let url = format!("http://{address}/readyz");
    let ready = wait_until("/readyz to be 200", READY_WITHIN, || {
        let dead = process.has_ended();
        let url = &url;
        async move {
            if dead {
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
    process.check()?;
    ready
}

/// What a developer has exported for a deployment must not mix with what is set here.
fn without_settings(program: Guarded) -> Guarded {
    let ours = |name: &String| {
        ["GREENROOM_", "DATABASE_", "LIVEKIT_", "AUTH_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    env::names().into_iter().filter(ours).fold(program, Guarded::without_env)
}

/// The usual port, or a free one when that is taken.
pub fn free_port() -> Result<u16> {
    if TcpListener::bind(("127.0.0.1", USUAL_PORT)).is_ok() {
        Ok(USUAL_PORT)
    } else {
        place::free_tcp_port()
    }
}

/// The secret of callers' tokens, kept so that a token pasted yesterday is only refused for its
/// age.
fn kept_secret(file: &Path) -> Result<String> {
    // An empty one was cut off in the making.
    if let Some(kept) = std::fs::read_to_string(file).ok().filter(|kept| !kept.is_empty()) {
        return Ok(kept);
    }
    let secret =
        format!("{}{}{}", place::random_hex()?, place::random_hex()?, place::random_hex()?);
    write_privately(file, &secret)?;
    Ok(secret)
}

/// Writes a file that nobody else may read.
fn write_privately(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, "")?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
    Ok(std::fs::write(file, text)?)
}
