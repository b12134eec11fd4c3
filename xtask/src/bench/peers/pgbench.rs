//! Inserts without a service: what PostgreSQL commits for pgbench's prepared statements.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use greenroom_testkit::pg::Database;
use greenroom_testkit::process::GuardedCommand;
use greenroom_testkit::tools::{find_on_path, postgres};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};

use super::load::Answers;
use super::service;
use crate::api::ORGANIZATION;
use crate::bench::deployment::{self, BenchEnv};

/// PostgreSQL accepts 200 connections, and the services' pools have some of them.
pub const MAX_CONNECTIONS: usize = 128;

/// Added to the duration, because pgbench counts the time in which its connections authenticate.
const CONNECT_TIME: Duration = Duration::from_secs(1);

const MISSING: &str = "pgbench is missing: install PostgreSQL (on Debian the package postgresql)";

/// A database with the tables of the Go service, and a script that inserts sessions.
pub struct Pgbench {
    program: PathBuf,
    directory: PathBuf,
    /// Number of rows in each statement.
    pub rows: u32,
    database: Database,
}

impl Pgbench {
    pub async fn start(env: &BenchEnv, rows: u32) -> Result<Self> {
        let program = program()?;
        let database = service::create_database(env).await?;
        let sql = deployment::connect(database.url()).await?;
        let template = service::insert_template(&sql, "on_join", None).await?;
        let directory = env.home.join(format!("pgbench-{rows}"));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("insert.sql"), script(&template, rows))?;
        Ok(Self { program, directory, rows, database })
    }

    /// Opens a connection to the database.
    pub async fn connect(&self) -> Result<Client> {
        deployment::connect(self.database.url()).await
    }

    /// Runs the script on this number of connections, at most [`MAX_CONNECTIONS`]. Blocks.
    pub fn run(&self, connections: usize, duration: Duration) -> Result<Answers> {
        let log = self.directory.join("pgbench.log");
        self.remove_logs()?;
        let config: Config = self.database.url().parse()?;
        let host = match config.get_hosts() {
            [Host::Tcp(host), ..] => host.clone(),
            _ => bail!("pgbench needs the host of a PostgreSQL server"),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
        let (connections, threads) = (connections.to_string(), connections.min(2).to_string());
        let seconds = (duration + CONNECT_TIME).as_secs().to_string();
        let output = GuardedCommand::new("pgbench", &self.program, &log)
            .args(["--no-vacuum", "--protocol=prepared", "--file=insert.sql", "--log"])
            .args(["--log-prefix=latencies", "--client", &connections, "--jobs", &threads])
            .args(["--time", &seconds, "--host", &host, "--port", &port])
            .args(["--username", config.get_user().context("the URL has no user")?])
            .args([config.get_dbname().context("the URL has no database")?])
            .env(
                "PGPASSWORD",
                String::from_utf8_lossy(config.get_password().unwrap_or_default()).as_ref(),
            )
            .current_dir(&self.directory)
            .run()?;
        let rate = parse_rate(&output).with_context(|| format!("pgbench printed {output}"))?;
        let latencies = self.latencies()?;
        let count = f64::from(u32::try_from(latencies.len())?);
        Ok(Answers { latencies, refused: 0, took: Duration::from_secs_f64(count / rate) })
    }

    fn remove_logs(&self) -> Result<()> {
        std::fs::remove_file(self.directory.join("pgbench.log")).ok();
        for file in self.latency_files()? {
            std::fs::remove_file(file)?;
        }
        Ok(())
    }

    /// Reads the duration of each transaction, sorted, in microseconds.
    fn latencies(&self) -> Result<Vec<u32>> {
        let mut latencies = Vec::new();
        for file in self.latency_files()? {
            for line in std::fs::read_to_string(file)?.lines() {
                latencies.push(parse_latency(line).with_context(|| line.to_owned())?);
            }
        }
        ensure!(!latencies.is_empty(), "pgbench logged no transaction");
        latencies.sort_unstable();
        Ok(latencies)
    }

    fn latency_files(&self) -> Result<Vec<PathBuf>> {
        let files = std::fs::read_dir(&self.directory)?.flatten().map(|entry| entry.path());
        let is_latencies = |file: &PathBuf| {
            file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("latencies"))
        };
        Ok(files.filter(is_latencies).collect())
    }
}

/// Returns the program beside `postgres`, or from `PATH`, because `postgres` may come from a wheel.
fn program() -> Result<PathBuf> {
    let beside = postgres::bin_directory()?.join("pgbench");
    Some(beside).filter(|file| file.exists()).or_else(|| find_on_path("pgbench")).context(MISSING)
}

fn script(template: &str, rows: u32) -> String {
    // The subquery gives each row its own id.
    format!(
        "insert into sessions (id, organization_id, template_id, room_name, participant_identity, token_expiry, join_by, request_hash)
         select id, '{ORGANIZATION}', '{template}', 'session-' || id, 'guest-' || right(id::text, 12),
           now() + interval '1 hour', now() + interval '1 hour', sha256(uuid_send(id))
         from (select gen_random_uuid() as id from generate_series(1, {rows})) new;"
    )
    .replace('\n', " ")
}

/// Reads the third field, `time` in microseconds.
fn parse_latency(line: &str) -> Option<u32> {
    line.split(' ').nth(2)?.parse().ok()
}

fn parse_rate(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|line| line.strip_prefix("tps = "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_pgbench_is_parsed() {
        let output = "latency average = 0.1 ms\ntps = 9120.5 (without initial connection time)\n";
        assert_eq!(parse_rate(output), Some(9_120.5));
        assert_eq!(parse_rate("connection failed"), None);
        assert_eq!(parse_latency("0 199 2241 0 1175850568 995598"), Some(2_241));
    }
}
