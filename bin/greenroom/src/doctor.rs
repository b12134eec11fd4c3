//! `greenroom doctor`: every dependency looked at, each line fine or with what to do.

use greenroom_core::{Fault, Greenroom};

use crate::config::Settings;

/// What to do about a part that is not well, beside what it says itself.
const DATABASE: &str = "Start PostgreSQL, or correct DATABASE_URL.";
const LIVEKIT: &str = "Start LiveKit, or correct LIVEKIT_API_URL (else LIVEKIT_URL) and the key.";
const CALLERS: &str = "Start the identity system, or correct AUTH_JWKS_URL.";

/// One line, and the lines below it when something is wrong.
struct Check {
    part: &'static str,
    found: Result<String, Fault>,
    /// None where what was found says it all.
    advice: Option<&'static str>,
}

/// Looks at everything and prints it; whether all is well.
///
/// # Errors
/// When nothing can be looked at, for no client can be made.
pub async fn run(settings: Settings) -> anyhow::Result<bool> {
    let Settings { greenroom: config, verifier, without_effect, .. } = settings;
    let (connections, livekit) = (config.database_pool_size, config.livekit.api_url.http());
    let readiness = Greenroom::new(config)?.readiness().await;
    let callers = verifier.check().await;
    let checks = [
        Check {
            part: "database",
            found: readiness
                .database
                .map(|()| format!("PostgreSQL answers; up to {connections} connections")),
            advice: Some(DATABASE),
        },
        Check {
            part: "migrations",
            found: readiness.migrations.map(|()| "all of them are applied".to_owned()),
            advice: None,
        },
        Check {
            part: "livekit",
            found: readiness.livekit.map(|()| format!("{livekit} answers, and takes the key")),
            advice: Some(LIVEKIT),
        },
        Check {
            part: "callers",
            found: callers
                .map(|how| format!("tokens are verified {how}"))
                .map_err(|what| Fault { what, cause: None }),
            advice: Some(CALLERS),
        },
    ];
    println!("Greenroom's dependencies\n");
    checks.iter().for_each(Check::print);
    for name in without_effect {
        println!("  ! {name} is set, and has no effect in this version");
    }
    Ok(checks.iter().all(|check| check.found.is_ok()))
}

impl Check {
    fn print(&self) {
        match &self.found {
            Ok(well) => println!("  ✓ {:<12}{well}", self.part),
            Err(fault) => {
                println!("  ✗ {:<12}{}", self.part, fault.what);
                let cause = fault.cause.as_deref();
                for line in cause.into_iter().chain(self.advice) {
                    println!("    {:<12}{line}", "");
                }
            }
        }
    }
}
