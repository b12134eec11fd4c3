//! The command line: its arguments, and the commands that need no file of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use greenroom_core::domain::{Invalid, OrganizationId, SessionCount, UserId};
use greenroom_core::{Admin, SessionLimit};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use crate::config::{Settings, TokenSettings};
use crate::failure::Failure;
use crate::output::print_line;
use crate::templates::command as templates;
use crate::{doctor, migrations, openapi, serve};

/// Starts LiveKit sessions: one POST opens the room, dispatches the agent and returns the token.
///
/// Environment variables configure Greenroom; .env.example documents them.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub struct Arguments {
    /// TOML file whose keys are the variables' names in lower case. The environment overrides the
    /// file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API and reconcile sessions with LiveKit, until SIGTERM or Ctrl-C.
    Serve,
    /// Bring the database schema up to date. Several processes may run this at the same time.
    Migrate(migrations::Arguments),
    /// Check every dependency, and print what to do about each failure.
    Doctor,
    /// Print a caller's token for development, signed with `AUTH_JWT_SECRET`.
    Token {
        /// The caller's organization.
        #[arg(long, value_name = "UUID")]
        org: OrganizationId,
        /// The id of an end user. Without it, the caller is a backend.
        #[arg(long, value_name = "USER", value_parser = user)]
        user: Option<UserId>,
        /// The permitted scopes, such as "sessions:start sessions:read". Without it, all scopes.
        #[arg(long, value_name = "SCOPES")]
        scope: Option<String>,
        /// The token's lifetime, such as 90s, 15m or 1h.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Print the OpenAPI document.
    Openapi,
    /// Check that `serve` with this configuration is ready, for a container's health check.
    Healthcheck,
    /// Manage organizations.
    Organization {
        #[command(subcommand)]
        command: OrganizationCommand,
    },
    /// Apply or export an organization's session templates as a file.
    Templates {
        #[command(subcommand)]
        command: templates::Command,
    },
}

#[derive(Subcommand)]
enum OrganizationCommand {
    /// Limit the open sessions (pending or active) of an organization.
    Limit {
        /// The organization's id.
        #[arg(value_name = "UUID")]
        organization: OrganizationId,
        /// A number, `default` for the value of `GREENROOM_MAX_ACTIVE_SESSIONS`, or `unlimited`.
        #[arg(value_parser = limit)]
        limit: SessionLimit,
    },
}

/// Runs a command and prints its failure. Returns 0 if it succeeded, 1 if it failed, and 2 if its
/// usage or the configuration is wrong.
pub async fn run(arguments: Arguments) -> ExitCode {
    execute(arguments).await.unwrap_or_else(|failure| failure.print())
}

async fn execute(arguments: Arguments) -> Result<ExitCode, Failure> {
    let file = arguments.config.as_deref();
    match arguments.command {
        Command::Serve => serve::run(Settings::read(file)?).await?,
        Command::Migrate(arguments) => migrations::run(&admin(file)?, &arguments).await?,
        Command::Doctor => {
            let is_healthy = doctor::run(Settings::read(file)?).await?;
            return Ok(if is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Token { org, user, scope, ttl } => {
            print_line(token(&Settings::token(file)?, org, user, scope, ttl)?)?;
        }
        Command::Openapi => print_line(openapi::document())?,
        Command::Healthcheck => healthcheck(Settings::listen(file)?).await?,
        Command::Organization { command: OrganizationCommand::Limit { organization, limit } } => {
            let result = admin(file)?.set_session_limit(organization, limit).await;
            result.context("failed to set the limit, or to wait for the starts in progress")?;
            print_line(format_args!("{organization}  {}", describe(limit)))?;
        }
        Command::Templates { command } => {
            command.run(&admin(file)?).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the administration of the database at `DATABASE_URL`.
fn admin(file: Option<&Path>) -> Result<Admin, Failure> {
    let admin = Admin::new(&Settings::database_url(file)?);
    Ok(admin.context("failed to prepare the connection to the database")?)
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
        ("exp".to_owned(), json!(expiry.context("--ttl is too long")?)),
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
    encode(&Header::default(), &claims, &key).context("failed to sign the token")
}

async fn healthcheck(listen: SocketAddr) -> anyhow::Result<()> {
    // A server that listens on all interfaces also listens on loopback.
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let url = format!("http://{}/readyz", SocketAddr::new(host, listen.port()));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
    let response = client.get(&url).send().await;
    let response = response.with_context(|| format!("{url} does not respond; start `serve`"))?;
    let status = response.status();
    let body: Value = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
    let checks = body["checks"].as_object();
    let checks = checks.with_context(|| format!("the response of {url} is not Greenroom's"))?;
    for (part, result) in checks {
        print_line(format_args!("{part:<12}{}", result.as_str().unwrap_or_default()))?;
    }
    ensure!(status.is_success(), "Greenroom is not ready");
    Ok(())
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::try_from(text.to_owned()).map_err(|invalid| invalid.to_string())
}

fn limit(text: &str) -> anyhow::Result<SessionLimit> {
    match text {
        "default" => Ok(SessionLimit::Default),
        "unlimited" => Ok(SessionLimit::Unlimited),
        number => match number.parse::<SessionCount>() {
            Ok(sessions) => Ok(SessionLimit::AtMost(sessions)),
            Err(invalid) => bail!("{}, default or unlimited", Invalid::from(invalid)),
        },
    }
}

fn describe(limit: SessionLimit) -> String {
    match limit {
        SessionLimit::Default => "the default of GREENROOM_MAX_ACTIVE_SESSIONS".to_owned(),
        SessionLimit::AtMost(sessions) if sessions.get() == 1 => {
            "at most 1 open session".to_owned()
        }
        SessionLimit::AtMost(sessions) => format!("at most {sessions} open sessions"),
        SessionLimit::Unlimited => "no limit".to_owned(),
    }
}
