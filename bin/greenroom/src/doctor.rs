//! `greenroom doctor`: checks every dependency, and prints what to do about a failure.

use greenroom_core::{Fault, Greenroom};

use crate::config::Settings;

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
/// Returns an error if a client cannot be created; then no check runs.
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
    println!("Greenroom's dependencies\n");
    checks.iter().for_each(Check::print);
    for name in without_effect {
        println!("  ! {name} is set but has no effect in this version");
    }
    Ok(checks.iter().all(|check| check.result.is_ok()))
}

impl Check {
    fn print(&self) {
        match &self.result {
            Ok(state) => println!("  ✓ {:<12}{state}", self.dependency),
            Err(fault) => {
                println!("  ✗ {:<12}{}", self.dependency, fault.summary);
                let cause = fault.cause.as_deref();
                for line in cause.into_iter().chain(self.advice) {
                    println!("    {:<12}{line}", "");
                }
            }
        }
    }
}
