//! Whether the parts Greenroom stands on are there.

use greenroom_livekit::LiveKitError;
use greenroom_store::migrate;

use crate::{Error, Greenroom};

/// What each part's check found: nothing, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub database: Result<(), String>,
    pub migrations: Result<(), String>,
    pub livekit: Result<(), String>,
}

impl Readiness {
    /// Whether requests can be served. With LiveKit down they can: sessions are still read, and
    /// starts answered honestly.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.database.is_ok() && self.migrations.is_ok()
    }
}

impl Greenroom {
    /// Looks at PostgreSQL, its schema, and LiveKit.
    pub async fn readiness(&self) -> Readiness {
        let migrations = self.shared.database.run(async |db| migrate::state(db).await);
        let (migrations, livekit) = tokio::join!(migrations, self.shared.rooms.check());
        let (database, migrations) = match migrations {
            Ok(states) => (Ok(()), missing(&states)),
            Err(Error::Overloaded) => (Err("every connection is busy".to_owned()), unknown()),
            // The cause may name hosts and users, so it is for the log.
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database check failed"
                );
                (Err("does not answer".to_owned()), unknown())
            }
        };
        let livekit = livekit.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the LiveKit check failed");
            // Its own words, or a proxy's, are for the log.
            match error {
                LiveKitError::Unavailable(_) => "does not answer",
                LiveKitError::Timeout => "does not answer in time",
                LiveKitError::Refused(_) => "refuses; is the key right?",
            }
            .to_owned()
        });
        Readiness { database, migrations, livekit }
    }
}

fn missing(states: &[migrate::MigrationState]) -> Result<(), String> {
    let missing: Vec<_> =
        states.iter().filter(|state| !state.applied).map(|state| state.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("not applied: {}; run `greenroom migrate`", missing.join(", ")))
}

fn unknown() -> Result<(), String> {
    Err("unknown while the database does not answer".to_owned())
}
