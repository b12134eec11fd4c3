//! `cargo xtask dev`: runs Greenroom with everything it needs, and a demo session through its API.

mod demo;

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use clap::Args;
use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::paths;
use greenroom_testkit::pg::Cluster;

use self::demo::Session;
use crate::components::{self, Postgres};
use crate::env;
use crate::service::{self, Service};
use crate::steps::{Steps, seconds};

/// The agent name of the demo's template.
const AGENT: &str = "greeter";

#[derive(Args)]
pub struct Arguments {
    /// Exit after the demo session: 0 if it was verified, otherwise 1.
    #[arg(long)]
    check: bool,
    /// Start with an empty database.
    #[arg(long)]
    fresh: bool,
    /// Start no agent worker, so that you can run your own. Its agent name must be `greeter`.
    #[arg(long)]
    no_agent: bool,
    /// Port of the API. Default: 8080, or a free port if 8080 is in use.
    #[arg(long)]
    port: Option<u16>,
}

/// All running components. They are dropped, and so stopped, in this order.
struct Deployment {
    service: Service,
    worker: Option<Worker>,
    livekit: Server,
    postgres: Postgres,
}

pub async fn run(arguments: Arguments, shutdown: impl Future<Output = ()>) -> Result<ExitCode> {
    let started = Instant::now();
    let check = arguments.check;
    tokio::pin!(shutdown);
    if let Some(port) = arguments.port {
        ensure!(
            TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "port {port} is in use: pass another --port, or omit it"
        );
    }
    print_line!("Components\n");
    let (deployment, _lock) = tokio::select! {
        deployment = start(&arguments) => deployment?,
        () = &mut shutdown => return Ok(ExitCode::from(130)),
    };
    let with_agent = deployment.worker.is_some();
    let session = demo::run(&deployment.service, with_agent, &mut shutdown).await?;
    if check {
        session.end(&deployment.service).await;
        print_line!("\nVerified in {}.", seconds(started.elapsed()));
        return Ok(ExitCode::SUCCESS);
    }
    print_usage(&deployment, &session);
    print_line!("\nReady in {}. Press Ctrl-C to stop.", seconds(started.elapsed()));
    let outcome = tokio::select! {
        exited = deployment.service.wait_for_exit() => Err(exited),
        () = &mut shutdown => Ok(ExitCode::SUCCESS),
    };
    print_line!("\nStopping.");
    session.end(&deployment.service).await;
    outcome
}

async fn start(arguments: &Arguments) -> Result<(Deployment, File)> {
    let home = paths::target_dir().join("dev");
    let lock = lock(&home)?;
    if arguments.fresh {
        delete_database(&home)?;
    }
    let steps = Steps::new();
    let port = arguments.port.map_or_else(service::choose_port, Ok)?;
    let (postgres, (livekit, worker), program) = tokio::try_join!(
        start_database(&steps, &home),
        start_livekit(&steps, arguments.no_agent, port),
        service::build(&steps),
    )?;
    let service = Service::start(&steps, program, port, &postgres.url, &livekit, &home).await?;
    Ok((Deployment { service, worker, livekit, postgres }, lock))
}

async fn start_database(steps: &Steps, home: &Path) -> Result<Postgres> {
    let postgres = Postgres::persistent(steps, &home.join("postgres")).await?;
    steps
        .run("Migrations", "migrating", async {
            let applied = greenroom_store::migrate::run(&postgres.url).await?.len();
            Ok((
                (),
                if applied == 0 {
                    "nothing to apply".to_owned()
                } else {
                    format!("{applied} applied")
                },
            ))
        })
        .await?;
    Ok(postgres)
}

async fn start_livekit(
    steps: &Steps,
    no_agent: bool,
    service_port: u16,
) -> Result<(Server, Option<Worker>)> {
    // Without webhooks, Greenroom notices changes only when it checks a session.
    let webhook = format!("http://127.0.0.1:{service_port}/webhooks/livekit");
    let livekit = components::livekit(steps, vec![webhook]);
    if no_agent {
        return Ok((livekit.await?, None));
    }
    let (livekit, ()) = tokio::try_join!(livekit, components::python(steps))?;
    let worker = steps
        .run("Agent worker", "registering with LiveKit", async {
            Ok((Worker::start(&livekit, AGENT).await?, format!("{AGENT}, registered with LiveKit")))
        })
        .await?;
    Ok((livekit, Some(worker)))
}

/// Ensures that only one `cargo xtask dev` uses the directory.
fn lock(home: &Path) -> Result<File> {
    std::fs::create_dir_all(home)?;
    let lock = File::create(home.join("lock"))?;
    ensure!(
        lock.try_lock().is_ok(),
        "another `cargo xtask dev` is running in this repository: stop it first"
    );
    Ok(lock)
}

fn delete_database(home: &Path) -> Result<()> {
    if env::text("DATABASE_URL").is_some() {
        bail!(
            "--fresh deletes the database in target/dev, but DATABASE_URL names another one: \
             unset DATABASE_URL"
        );
    }
    Cluster::delete(&home.join("postgres"))
}

fn print_usage(deployment: &Deployment, session: &Session) {
    print_line!("\nStart another session:\n\n{}\n", session.curl(&deployment.service));
    let rows: [(&str, &str); 6] = [
        ("API", &deployment.service.url("/api/v1")),
        ("Docs", &deployment.service.url("/docs")),
        ("LiveKit", deployment.livekit.url()),
        ("PostgreSQL", &deployment.postgres.url),
        ("Logs", &deployment.service.log()),
        ("Settings", &format!("set -a; . target/dev/{}; set +a", service::SETTINGS_FILE)),
    ];
    for (name, value) in rows {
        print_line!("  {name:<12}{value}");
    }
}
