//! The readiness check of PostgreSQL, its schema and LiveKit.

use std::error::Error as StdError;
use std::time::Duration;

use greenroom_domain::ErrorChain;
use greenroom_livekit::LiveKitError;
use greenroom_store::connection::server_version;
use greenroom_store::migrate;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::{Error, Greenroom};

/// How long a result is cached.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// Time limit for PostgreSQL. Opening a connection takes up to 3 s of it.
const DB_CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// Time limit for a caller, including the wait for checks of other callers.
const REPLY_TIMEOUT: Duration = Duration::from_millis(4_500);

/// PostgreSQL 15, in the format of `server_version_num`.
const MIN_POSTGRES_VERSION: i32 = 150_000;

/// The result of the readiness check, per dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Readiness {
    /// PostgreSQL responds, and its version is supported.
    pub database: Result<(), Fault>,
    /// All migrations are applied.
    pub migrations: Result<(), Fault>,
    /// LiveKit responds and accepts the API key.
    pub livekit: Result<(), Fault>,
}

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The fault without its subject, such as `does not respond`. The text contains no host, user
    /// or key, so it can be shown to any caller.
    pub summary: String,
    /// The error messages of the dependency, for the operator. They may name hosts and users.
    /// `None` means that the summary is complete.
    pub cause: Option<String>,
}

impl Readiness {
    /// Whether this process can serve requests. LiveKit is not required: without LiveKit, sessions
    /// can still be read, and starts report the failure.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.database.is_ok() && self.migrations.is_ok()
    }
}

impl Fault {
    /// Creates a fault without a cause.
    #[must_use]
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), cause: None }
    }

    fn with_cause(summary: &str, error: &(dyn StdError + 'static)) -> Self {
        Self { summary: summary.to_owned(), cause: Some(ErrorChain(error).to_string()) }
    }
}

/// The last result, and when its check finished.
#[derive(Default)]
pub(crate) struct ReadinessCache(Mutex<Option<(Instant, Readiness)>>);

impl Greenroom {
    /// Checks PostgreSQL, its schema and LiveKit. Returns within 4.5 seconds.
    ///
    /// A result is cached for one second, so that frequent calls do not cause more calls to
    /// LiveKit, and concurrent callers share one check.
    pub async fn readiness(&self) -> Readiness {
        let readiness = async {
            let mut cached = self.shared.readiness_cache.0.lock().await;
            match &*cached {
                Some((at, readiness)) if at.elapsed() < CACHE_TTL => readiness.clone(),
                _ => {
                    let readiness = self.check_dependencies().await;
                    *cached = Some((Instant::now(), readiness.clone()));
                    readiness
                }
            }
        };
        // A caller that is dropped during its check caches no result, so the wait for the lock can
        // take longer than one check.
        timeout(REPLY_TIMEOUT, readiness).await.unwrap_or_else(|_| Readiness {
            database: Err(Fault::new("does not respond in time")),
            migrations: unknown(),
            livekit: Err(Fault::new("was not checked in time")),
        })
    }

    async fn check_dependencies(&self) -> Readiness {
        let database = self.shared.database.run_within(DB_CHECK_TIMEOUT, async |db| {
            Ok((server_version(db).await?, migrate::state(db).await?))
        });
        let (database, livekit) = tokio::join!(database, self.shared.livekit.rooms.check());
        let (database, migrations) = match database {
            Ok((version, states)) => (check_version(version), check_migrations(&states)),
            // All connections serve requests, so the process is ready.
            Err(Error::Overloaded) if self.shared.database.has_responded_recently() => {
                (Ok(()), Ok(()))
            }
            Err(error) => (Err(Fault::with_cause("does not respond", &error)), unknown()),
        };
        let livekit = livekit.map_err(|error| {
            let summary = match error {
                LiveKitError::Unavailable(_) | LiveKitError::NoNode(_) => "does not respond",
                LiveKitError::Timeout => "does not respond in time",
                // `Refused`, `NotFound` and `TooLarge`.
                _ => "refuses the call; check its API key and secret",
            };
            Fault::with_cause(summary, &error)
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
    Err(Fault::new("unknown while the database does not respond"))
}
