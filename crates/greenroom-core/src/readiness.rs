//! Whether the parts Greenroom stands on are there.

use std::error::Error as StdError;
use std::time::Duration;

use greenroom_livekit::LiveKitError;
use greenroom_store::connection::server_version;
use greenroom_store::migrate;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::{Error, Greenroom};

/// How long what was found holds.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// How long PostgreSQL has to answer; opening a connection may take three seconds of it.
const DB_CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long whoever asks waits, for others' looks, too.
const REPLY_DEADLINE: Duration = Duration::from_millis(4_500);

/// PostgreSQL 15, as it counts its versions itself.
const MIN_POSTGRES_VERSION: i32 = 150_000;

/// What each part's check found: nothing, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether PostgreSQL answers, and is new enough.
    pub database: Result<(), Fault>,
    /// Whether its schema is up to date.
    pub migrations: Result<(), Fault>,
    /// Whether LiveKit answers, and takes the key.
    pub livekit: Result<(), Fault>,
}

/// What is wrong with a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For everybody: it names no host, user or key.
    pub what: String,
    /// For whoever runs the service: the part's own words, which may name them.
    pub cause: Option<String>,
}

impl Readiness {
    /// Whether requests can be served. With LiveKit down they can: sessions are still read, and
    /// starts answered honestly.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.database.is_ok() && self.migrations.is_ok()
    }
}

impl Fault {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None }
    }

    fn of(what: &str, error: &dyn StdError) -> Self {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            cause = format!("{cause}: {error}");
            source = error.source();
        }
        Self { what: what.to_owned(), cause: Some(cause) }
    }
}

/// What was last found, and when.
#[derive(Default)]
pub(crate) struct ReadinessCache(Mutex<Option<(Instant, Readiness)>>);

impl Greenroom {
    /// Looks at PostgreSQL, its schema, and LiveKit. Who asks within a second of another gets what
    /// that one was told: anybody may ask, and LiveKit counts its calls.
    pub async fn readiness(&self) -> Readiness {
        let found = async {
            let mut last = self.shared.readiness_cache.0.lock().await;
            match &*last {
                Some((at, found)) if at.elapsed() < CACHE_TTL => found.clone(),
                _ => {
                    let found = self.check_dependencies().await;
                    *last = Some((Instant::now(), found.clone()));
                    found
                }
            }
        };
        // Those who asked before may have gone away in the middle of their looks.
        timeout(REPLY_DEADLINE, found).await.unwrap_or_else(|_| Readiness {
            database: Err(Fault::new("does not answer in time")),
            migrations: unknown(),
            livekit: Err(Fault::new("was not looked at")),
        })
    }

    async fn check_dependencies(&self) -> Readiness {
        let database = self.shared.database.run_within(DB_CHECK_TIMEOUT, async |db| {
            Ok((server_version(db).await?, migrate::state(db).await?))
        });
        let (database, livekit) = tokio::join!(database, self.shared.rooms.check());
        let (database, migrations) = match database {
            Ok((version, states)) => (check_version(version), check_migrations(&states)),
            // Every connection serves somebody, which is what being ready is for.
            Err(Error::Overloaded) => (Ok(()), Ok(())),
            Err(error) => (Err(Fault::of("does not answer", &error)), unknown()),
        };
        let livekit = livekit.map_err(|error| {
            let what = match error {
                LiveKitError::Unavailable(_) | LiveKitError::NoNode(_) => "does not answer",
                LiveKitError::Timeout => "does not answer in time",
                LiveKitError::Refused(_) | LiveKitError::NotFound => "refuses; is the key right?",
            };
            Fault::of(what, &error)
        });
        Readiness { database, migrations, livekit }
    }
}

fn check_version(version: i32) -> Result<(), Fault> {
    if version >= MIN_POSTGRES_VERSION {
        return Ok(());
    }
    let major = version / 10_000;
    Err(Fault::new(format!("is PostgreSQL {major}; Greenroom needs 15 or later")))
}

fn check_migrations(states: &[migrate::MigrationState]) -> Result<(), Fault> {
    let missing: Vec<_> =
        states.iter().filter(|state| !state.applied).map(|state| state.name.as_str()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Fault::new(format!("not applied: {missing}; run `greenroom migrate`")))
}

fn unknown() -> Result<(), Fault> {
    Err(Fault::new("unknown while the database does not answer"))
}
