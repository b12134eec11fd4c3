//! `greenroom doctor`: checks every dependency, and prints what to do about a failure.

use greenroom_core::{Fault, Greenroom, Readiness, TranslatedMessages};

use crate::auth::verify::Verifier;
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
    let greenroom = Greenroom::new(config)?;
    let Readiness { database, migrations, livekit: livekit_result, .. } =
        greenroom.readiness().await;
    let translated = match database {
        // A failure would be reported by the next run as that of the database.
        Ok(()) => greenroom.admin().translated_messages().await.ok().flatten(),
        Err(_) => None,
    };
    let checks = [
        Check {
            dependency: "database",
            result: database.map(|()| {
                format!("PostgreSQL responds; the pool has up to {connections} connections")
            }),
            advice: Some(DATABASE),
        },
        Check {
            dependency: "migrations",
            result: migrations.map(|()| "all migrations are applied".to_owned()),
            advice: None,
        },
        Check {
            dependency: "livekit",
            result: livekit_result.map(|()| format!("{livekit} responds and accepts the API key")),
            advice: Some(LIVEKIT),
        },
        check_callers(&verifier).await,
    ];
    print(&checks, translated.as_ref(), &without_effect)?;
    Ok(checks.iter().all(|check| check.result.is_ok()))
}

async fn check_callers(verifier: &Verifier) -> Check {
    let result = verifier.check().await;
    Check {
        dependency: "callers",
        result: result.map(|how| format!("tokens are verified {how}")).map_err(Fault::new),
        advice: Some(CALLERS),
    }
}

fn print(
    checks: &[Check],
    translated: Option<&TranslatedMessages>,
    without_effect: &[&str],
) -> anyhow::Result<()> {
    print_line("Greenroom's dependencies\n")?;
    for check in checks {
        check.print()?;
    }
    if let Some(messages) = translated {
        let warning = translation_warning(&messages.locale, &messages.role);
        print_line(format_args!("  ! {warning}"))?;
    }
    for name in without_effect {
        print_line(format_args!("  ! {name} is set but has no effect in this version"))?;
    }
    Ok(())
}

/// The effect of messages that Greenroom cannot classify, and the remedy.
fn translation_warning(locale: &str, role: &str) -> String {
    format!(
        "PostgreSQL's messages are not English (lc_messages is '{locale}'), so a full disk or a time-out \
         is reported as 500 instead of 503. Run as a superuser: grant set on parameter lc_messages \
         to {role}"
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_contains_the_statement_for_the_role() {
        let warning = translation_warning("de_DE.UTF-8", "\"my app\"");
        assert!(warning.contains("lc_messages is 'de_DE.UTF-8'"), "{warning}");
        assert!(
            warning.ends_with(": grant set on parameter lc_messages to \"my app\""),
            "{warning}"
        );
    }
}
