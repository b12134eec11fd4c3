//! The commands, and what they print.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use greenroom_core::domain::{OrganizationId, UserId};
use greenroom_core::{SessionLimit, migrate, set_session_limit};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::config::{Faults, Settings, TokenSettings};
use crate::templates::command as templates;
use crate::templates::file::FileFaults;
use crate::{doctor, openapi, serve};

/// Starts LiveKit sessions: the room, the agent and the token, by one POST.
///
/// Configured by environment variables; .env.example names them all.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub struct Arguments {
    /// A TOML file with the same names in lower case; the environment comes before it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API until SIGTERM or Ctrl-C.
    Serve,
    /// Bring the database's schema up to date. Any number of processes may do so at once.
    Migrate {
        /// Take back the newest N migrations instead.
        #[arg(long, value_name = "N")]
        revert: Option<NonZeroUsize>,
    },
    /// Look at every dependency: each line is fine, or says what to do.
    Doctor,
    /// Print a caller's token for development, signed with `AUTH_JWT_SECRET`.
    Token {
        /// The organization the token is for.
        #[arg(long, value_name = "UUID")]
        org: OrganizationId,
        /// Make the caller this end user; without it, a backend.
        #[arg(long, value_name = "USER", value_parser = user)]
        user: Option<UserId>,
        /// What the token allows, such as "sessions:start sessions:read"; without it, everything.
        #[arg(long, value_name = "SCOPES")]
        scope: Option<String>,
        /// How long it is good for, such as 90s, 15m or 1h.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Ask the `serve` of this configuration whether it is ready: for a container's health check.
    Healthcheck,
    /// Manage organizations.
    Organization {
        #[command(subcommand)]
        command: OrganizationCommand,
    },
    /// Keep an organization's session templates in a file.
    Templates {
        #[command(subcommand)]
        command: templates::Command,
    },
}

#[derive(Subcommand)]
enum OrganizationCommand {
    /// Limit how many sessions of an organization may live at once.
    Limit {
        /// The organization.
        #[arg(value_name = "UUID")]
        organization: OrganizationId,
        /// A number, `default` for `GREENROOM_MAX_ACTIVE_SESSIONS`, or `unlimited`.
        #[arg(value_parser = limit)]
        limit: SessionLimit,
    },
}

/// Why a command did not do what it is for.
pub enum Failure {
    /// It was not tried.
    Configuration(Faults),
    /// Nor this, for the file it was given.
    File(FileFaults),
    Other(anyhow::Error),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Configuration(faults)
    }
}

impl From<FileFaults> for Failure {
    fn from(faults: FileFaults) -> Self {
        Self::File(faults)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub async fn run(arguments: Arguments) -> ExitCode {
    match try_to(arguments).await {
        Ok(code) => code,
        Err(Failure::Configuration(faults)) => {
            eprintln!("greenroom: {faults}");
            ExitCode::from(2)
        }
        Err(Failure::File(faults)) => {
            // As compilers tell them, so that editors find the place.
            eprintln!("{faults}");
            ExitCode::from(2)
        }
        Err(Failure::Other(error)) => {
            eprintln!("greenroom: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn try_to(arguments: Arguments) -> Result<ExitCode, Failure> {
    let file = arguments.config.as_deref();
    match arguments.command {
        Command::Serve => serve::run(Settings::read(file)?).await?,
        Command::Migrate { revert } => {
            run_migrations(Settings::database_url(file)?.expose_secret(), revert).await?;
        }
        Command::Doctor => {
            let well = doctor::run(Settings::read(file)?).await?;
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Token { org, user, scope, ttl } => {
            println!("{}", token(&Settings::token(file)?, org, user, scope, ttl)?);
        }
        Command::Openapi => println!("{}", openapi::document()),
        Command::Healthcheck => healthcheck(Settings::listen(file)?).await?,
        Command::Organization { command: OrganizationCommand::Limit { organization, limit } } => {
            let url = Settings::database_url(file)?;
            let set = set_session_limit(url.expose_secret(), organization, limit).await;
            set.context("the limit is unchanged")?;
            println!("{organization}  {}", told(limit));
        }
        Command::Templates { command } => {
            command.run(Settings::database_url(file)?.expose_secret()).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_migrations(url: &str, revert: Option<NonZeroUsize>) -> anyhow::Result<()> {
    let (verb, nothing, names) = match revert {
        None => ("applied", "the schema is as it should be", migrate::run(url).await),
        Some(count) => {
            ("reverted", "no migration is applied", migrate::revert(url, count.get()).await)
        }
    };
    let names = names.context("the schema is unchanged")?;
    for name in &names {
        println!("{verb}  {name}");
    }
    if names.is_empty() {
        println!("nothing to do: {nothing}");
    }
    Ok(())
}

fn token(
    settings: &TokenSettings,
    organization: OrganizationId,
    user: Option<UserId>,
    scope: Option<String>,
    ttl: Duration,
) -> anyhow::Result<String> {
    let rules = &settings.rules;
    let expiry = get_current_timestamp().checked_add(ttl.as_secs());
    let mut claims = Map::from_iter([
        ("exp".to_owned(), json!(expiry.context("--ttl is longer than time lasts")?)),
        (rules.org_claim.clone(), json!(organization)),
    ]);
    let optional = [
        (rules.user_claim.as_str(), user.map(|user| user.as_str().to_owned())),
        ("scope", scope),
        ("iss", rules.issuer.clone()),
        ("aud", rules.audience.clone()),
    ];
    for (name, text) in optional {
        claims.extend(text.map(|text| (name.to_owned(), Value::String(text))));
    }
    let key = EncodingKey::from_secret(settings.secret.expose_secret().as_bytes());
    encode(&Header::default(), &claims, &key).context("the token cannot be signed")
}

async fn healthcheck(listen: SocketAddr) -> anyhow::Result<()> {
    // What listens everywhere answers here, too.
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let url = format!("http://{}/readyz", SocketAddr::new(host, listen.port()));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
    let answer = client.get(&url).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let body: Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
    let checks = body["checks"].as_object().context("what answers there is not Greenroom")?;
    for (part, found) in checks {
        println!("{part:<12}{}", found.as_str().unwrap_or_default());
    }
    ensure!(status.is_success(), "not ready");
    Ok(())
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::try_from(text.to_owned()).map_err(|invalid| invalid.to_string())
}

fn limit(text: &str) -> anyhow::Result<SessionLimit> {
    match text {
        "default" => Ok(SessionLimit::Default),
        "unlimited" => Ok(SessionLimit::Unlimited),
        number => match number.parse() {
            Ok(sessions @ 0..) => Ok(SessionLimit::AtMost(sessions)),
            _ => bail!("must be a whole number from 0, default, or unlimited"),
        },
    }
}

fn told(limit: SessionLimit) -> String {
    match limit {
        SessionLimit::Default => "as many sessions as the server's default allows".to_owned(),
        SessionLimit::AtMost(1) => "at most 1 session at once".to_owned(),
        SessionLimit::AtMost(sessions) => format!("at most {sessions} sessions at once"),
        SessionLimit::Unlimited => "any number of sessions".to_owned(),
    }
}
