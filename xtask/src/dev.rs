//! `cargo xtask dev`: Greenroom with everything it needs, and a first session through its API.

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
use greenroom_testkit::pg::Cluster;
use greenroom_testkit::place;

use self::demo::Session;
use crate::parts::Postgres;
use crate::service::Service;
use crate::steps::{Steps, seconds};
use crate::{env, parts, service};

/// The name the demo's template asks for.
const AGENT: &str = "greeter";

#[derive(Args)]
pub struct Arguments {
    /// Stop once the session is verified: exit 0 if everything happened, else 1.
    #[arg(long)]
    check: bool,
    /// Start over with an empty database.
    #[arg(long)]
    fresh: bool,
    /// Start no agent worker: one of your own, named `greeter`, may come.
    #[arg(long)]
    no_agent: bool,
    /// The port of the API; by default 8080, or any free one when that is taken.
    #[arg(long)]
    port: Option<u16>,
}

/// Everything that runs. The fields are dropped, and so stopped, in this order.
struct Stage {
    service: Service,
    worker: Option<Worker>,
    livekit: Server,
    postgres: Postgres,
}

pub async fn run(
    arguments: Arguments,
    asked_to_stop: impl Future<Output = ()>,
) -> Result<ExitCode> {
    let started = Instant::now();
    let check = arguments.check;
    tokio::pin!(asked_to_stop);
    if let Some(port) = arguments.port {
        ensure!(
            TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "port {port} is taken: choose another with --port, or leave it out"
        );
    }
    println!("Greenroom, for development\n");
    let set = tokio::select! {
        set = set_up(&arguments) => set?,
        () = &mut asked_to_stop => return Ok(ExitCode::from(130)),
    };
    let (stage, _lock) = set;
    let with_agent = stage.worker.is_some();
    let session = demo::run(&stage.service, with_agent, &mut asked_to_stop).await?;
    if check {
        session.end(&stage.service).await;
        println!("\nVerified in {}.", seconds(started.elapsed()));
        return Ok(ExitCode::SUCCESS);
    }
    addresses(&stage, &session);
    println!("\nReady in {}. Ctrl-C stops it all.", seconds(started.elapsed()));
    let outcome = tokio::select! {
        died = stage.service.died() => Err(died),
        () = &mut asked_to_stop => Ok(ExitCode::SUCCESS),
    };
    println!("\nStopping.");
    session.end(&stage.service).await;
    outcome
}

async fn set_up(arguments: &Arguments) -> Result<(Stage, File)> {
    let home = place::target().join("dev");
    let lock = only_one(&home)?;
    if arguments.fresh {
        start_over(&home)?;
    }
    let steps = Steps::new();
    let port = arguments.port.map_or_else(service::free_port, Ok)?;
    let (postgres, (livekit, worker), program) = tokio::try_join!(
        database(&steps, &home),
        rooms(&steps, arguments.no_agent, port),
        service::build(&steps),
    )?;
    let service = Service::start(&steps, program, port, &postgres.url, &livekit, &home).await?;
    Ok((Stage { service, worker, livekit, postgres }, lock))
}

async fn database(steps: &Steps, home: &Path) -> Result<Postgres> {
    let postgres = Postgres::kept_in(steps, &home.join("postgres")).await?;
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

async fn rooms(steps: &Steps, no_agent: bool, greenroom: u16) -> Result<(Server, Option<Worker>)> {
    // What LiveKit tells is known at once; without it, Greenroom sees it a little later.
    let webhook = format!("http://127.0.0.1:{greenroom}/webhooks/livekit");
    let livekit = parts::livekit(steps, vec![webhook]);
    if no_agent {
        return Ok((livekit.await?, None));
    }
    let (livekit, ()) = tokio::try_join!(livekit, parts::python(steps))?;
    let worker = steps
        .run("Agent worker", "registering with LiveKit", async {
            Ok((Worker::start(&livekit, AGENT).await?, format!("{AGENT}, registered with LiveKit")))
        })
        .await?;
    Ok((livekit, Some(worker)))
}

fn only_one(home: &Path) -> Result<File> {
    std::fs::create_dir_all(home)?;
    let lock = File::create(home.join("lock"))?;
    ensure!(
        lock.try_lock().is_ok(),
        "another `cargo xtask dev` runs in this repository: stop it first"
    );
    Ok(lock)
}

fn start_over(home: &Path) -> Result<()> {
    if env::text("DATABASE_URL").is_some() {
        bail!(
            "--fresh empties the PostgreSQL of target/dev, but DATABASE_URL names another: unset it"
        );
    }
    Cluster::forget(&home.join("postgres"))
}

fn addresses(stage: &Stage, session: &Session) {
    println!("\nStart another:\n\n{}\n", session.curl(&stage.service));
    let rows: [(&str, &str); 6] = [
        ("API", &stage.service.url("/api/v1")),
        ("Docs", &stage.service.url("/docs")),
        ("LiveKit", stage.livekit.url()),
        ("PostgreSQL", &stage.postgres.url),
        ("Logs", &stage.service.log()),
        ("Settings", &format!("set -a; . target/dev/{}; set +a", service::SETTINGS)),
    ];
    for (name, address) in rows {
        println!("  {name:<12}{address}");
    }
}
