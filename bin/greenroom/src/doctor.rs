//! `greenroom doctor`: checks every dependency, and prints what to do about a failure.

use greenroom_core::{Fault, Greenroom};

use crate::config::Settings;
use crate::output::print_line;

const DATABASE: &str = "Start PostgreSQL, or correct DATABASE_URL.";
const LIVEKIT: &str =
    "Start LiveKit, or correct LIVEKIT_API_URL (LIVEKIT_URL if it is not set) and the API key.";
const CALLERS: &str = "Start the identity provider, or correct AUTH_JWKS_URL.";

/// The result of checking one dependency.
struct Check {
    dependency: &'static str,
    result: Result<String, Fault>,
    /// Advice after a failure. `None` if the fault already contains it.
    advice: Option<&'static str>,
}

/// Checks and prints every dependency. Returns whether all checks succeeded.
///
/// # Errors
/// Returns an error if a client cannot be created, so that no check runs, or if the result cannot be
/// printed.
pub async fn run(settings: Settings) -> anyhow::Result<bool> {
    let Settings { greenroom: config, verifier, without_effect, .. } = settings;
    let (connections, livekit) = (config.database_pool_size, config.livekit.api_url.http());
    let readiness = Greenroom::new(config)?.readiness().await;
    let callers = verifier.check().await;
    let checks = [
        Check {
            dependency: "database",
            result: readiness.database.map(|()| {
                format!("PostgreSQL responds; the pool has up to {connections} connections")
            }),
            advice: Some(DATABASE),
        },
        Check {
            dependency: "migrations",
            result: readiness.migrations.map(|()| "all migrations are applied".to_owned()),
            advice: None,
        },
        Check {
            dependency: "livekit",
            result: readiness
                .livekit
                .map(|()| format!("{livekit} responds and accepts the API key")),
            advice: Some(LIVEKIT),
        },
        Check {
            dependency: "callers",
            result: callers.map(|how| format!("tokens are verified {how}")).map_err(Fault::new),
            advice: Some(CALLERS),
        },
    ];
    print_line("Greenroom's dependencies\n")?;
    for check in &checks {
        check.print()?;
    }
    for name in without_effect {
        print_line(format_args!("  ! {name} is set but has no effect in this version"))?;
    }
    Ok(checks.iter().all(|check| check.result.is_ok()))
}

impl Check {
    fn print(&self) -> anyhow::Result<()> {
        match &self.result {
            Ok(state) => print_line(format_args!("  ✓ {:<12}{state}", self.dependency)),
            Err(fault) => {
                print_line(format_args!("  ✗ {:<12}{}", self.dependency, fault.summary))?;
                let mut lines = fault.cause.as_deref().into_iter().chain(self.advice);
                lines.try_for_each(|line| print_line(format_args!("    {:<12}{line}", "")))
            }
        }
    }
}
