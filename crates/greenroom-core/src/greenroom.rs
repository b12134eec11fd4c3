//! The service [`Greenroom`], its configuration and its builder.

use std::sync::Arc;
use std::time::Duration;

use greenroom_domain::template::{AgentDeadline, TokenTtl};
use greenroom_domain::{
    CallsInFlight, CallsPerMinute, PoolSize, ReconcileInterval, RetentionDays, SessionCount,
    StartsPerMinute,
};
use greenroom_livekit::webhook::WebhookVerifier;
use greenroom_livekit::{LiveKitConfig, LiveKitRooms, Rooms, TokenSigner};
use greenroom_store::{DatabaseUrl, PolicyDefaults};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::batch_queue::{BatchQueue, MAX_IN_FLIGHT};
use crate::clock::{Clock, RoomNameGenerator};
use crate::database::Database;
use crate::keeper::{Breaker, Buckets, RoomNodes, Schedule};
use crate::limits::StartLimits;
use crate::livekit_limiter::LiveKitLimiter;
use crate::opening_rooms::OpeningRooms;
use crate::readiness::ReadinessCache;
use crate::reads::ReadQueue;
use crate::wait::Waiters;

/// The configuration of a [`Greenroom`]. [`Config::new`] sets every default; assign a field to
/// change it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// URL of the database: PostgreSQL 15 or later. [`Admin::migrate`](crate::Admin::migrate)
    /// creates its schema.
    pub database_url: DatabaseUrl,
    /// Maximum number of connections that this process opens to the database. Starts, the
    /// keeper with webhooks, and other requests each have a share of them.
    pub database_pool_size: PoolSize,
    /// Addresses and API key of LiveKit.
    pub livekit: LiveKitConfig,
    /// Lifetime of join tokens, for templates that set none.
    pub token_ttl: TokenTtl,
    /// How long a requested agent may take to join before it counts as unavailable, for templates
    /// that set no deadline.
    pub agent_deadline: AgentDeadline,
    /// Mean interval between two checks of an idle session against LiveKit. The interval of each
    /// session is up to a fifth shorter or longer, so that the checks are spread evenly.
    pub reconcile_every: ReconcileInterval,
    /// Behaviour of a start while LiveKit is unavailable.
    pub on_livekit_down: OnLiveKitDown,
    /// Maximum number of concurrent calls to LiveKit. The keeper uses at most three quarters of
    /// them.
    pub livekit_max_in_flight: CallsInFlight,
    /// Budget of calls to LiveKit per minute, which all processes share evenly. While a quarter or less of it is left, the keeper
    /// postpones idle sessions. Starts are never refused for lack of budget. `None` means no limit.
    pub livekit_calls_per_minute: Option<CallsPerMinute>,
    /// Number of days after which a session that is over is deleted. `None` keeps all sessions.
    pub retention_days: Option<RetentionDays>,
    /// Maximum number of open sessions (`pending` or `active`) per organization, unless
    /// [`Admin::set_session_limit`](crate::Admin::set_session_limit) has set another limit for the
    /// organization. `None` means no limit.
    pub max_active_sessions: Option<SessionCount>,
    /// Maximum number of starts per organization and minute in this process. `None` means no limit.
    pub starts_per_minute: Option<StartsPerMinute>,
}

/// Behaviour of a start while LiveKit is unavailable: unreachable, or without a response in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLiveKitDown {
    /// The start fails with [`Error::LiveKit`].
    Fail,
    /// The start continues as if the template had the room creation `on_join`: LiveKit opens the
    /// room when the user joins. The start still fails if LiveKit refused the call, if the dispatch
    /// contains data that the user may not read, or if the dispatch would make the join token longer
    /// than 6 KiB.
    TokenOnly,
}

impl Config {
    /// Creates a configuration with the defaults of the `greenroom` program.
    #[must_use]
    pub fn new(database_url: DatabaseUrl, livekit: LiveKitConfig) -> Self {
        Self {
            database_url,
            database_pool_size: PoolSize::constant::<10>(),
            livekit,
            token_ttl: TokenTtl::constant::<3600>(),
            agent_deadline: AgentDeadline::constant::<30>(),
            reconcile_every: ReconcileInterval::constant::<30>(),
            on_livekit_down: OnLiveKitDown::Fail,
            livekit_max_in_flight: CallsInFlight::constant::<64>(),
            livekit_calls_per_minute: None,
            retention_days: None,
            max_active_sessions: None,
            starts_per_minute: None,
        }
    }
}

/// The session service. Clones are cheap and share all state.
#[derive(Clone)]
pub struct Greenroom {
    pub(crate) shared: Arc<Shared>,
}

/// The state that all clones of a [`Greenroom`] share.
pub(crate) struct Shared {
    pub(crate) database: Arc<Database>,
    pub(crate) livekit: LiveKit,
    pub(crate) limits: StartLimits,
    pub(crate) settings: SessionSettings,
    pub(crate) clock: Clock,
    pub(crate) room_names: RoomNameGenerator,
    pub(crate) readiness_cache: ReadinessCache,
    pub(crate) reads: Arc<ReadQueue>,
    pub(crate) waiters: Waiters,
    /// Pauses the keeper's checks while LiveKit fails.
    pub(crate) breaker: Breaker,
    /// The rooms with a node that is known to be present or gone.
    pub(crate) room_nodes: RoomNodes,
    /// The buckets that this process holds.
    pub(crate) buckets: Buckets,
    /// The next checks of the sessions in these buckets.
    pub(crate) schedule: Arc<Schedule>,
    /// When the latest webhook arrived.
    pub(crate) latest_webhook: Mutex<Option<Instant>>,
    pub(crate) opening_rooms: OpeningRooms,
    /// Wakes the keeper when this process makes a session due in PostgreSQL.
    pub(crate) search_requested: Notify,
}

impl Shared {
    /// Mean interval between two checks of an idle session.
    pub(crate) fn reconcile_interval(&self) -> Duration {
        Duration::from_secs(self.settings.policy.reconcile_every.get().unsigned_abs().into())
    }

    /// Returns whether a webhook of LiveKit arrived within `period`.
    pub(crate) fn received_webhook_within(&self, period: Duration) -> bool {
        self.latest_webhook.lock().is_some_and(|at| at.elapsed() < period)
    }

    /// Returns whether idle sessions are postponed, because calls to LiveKit are scarce. The
    /// processes share the calls per minute.
    pub(crate) fn are_calls_scarce(&self) -> bool {
        self.livekit.limiter.are_calls_scarce(self.buckets.replicas())
    }
}

/// Access to LiveKit: calls, tokens and webhooks.
pub(crate) struct LiveKit {
    pub(crate) rooms: Arc<dyn Rooms>,
    pub(crate) limiter: LiveKitLimiter,
    pub(crate) signer: TokenSigner,
    pub(crate) webhooks: WebhookVerifier,
    /// The URL at which clients join.
    pub(crate) client_url: String,
    pub(crate) on_down: OnLiveKitDown,
}

/// Settings of all sessions; a template may override the token TTL and agent deadline.
pub(crate) struct SessionSettings {
    pub(crate) token_ttl: TokenTtl,
    pub(crate) policy: PolicyDefaults,
    pub(crate) retention_days: Option<RetentionDays>,
}

impl Greenroom {
    /// Creates the service from its configuration.
    ///
    /// Opens no connection: connections to PostgreSQL and LiveKit are opened when they are first
    /// needed.
    ///
    /// # Errors
    ///
    /// Returns [`Error::LiveKit`] if the HTTP client for LiveKit cannot be created, and
    /// [`Error::Store`] if the connection pool cannot be created.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::builder(config).build()
    }

    /// Waits until the work that was abandoned on the database is settled, for at most ten seconds.
    ///
    /// If PostgreSQL did not respond to a start in time, its caller got an error, and a task ends the
    /// session that the statement may have written. Call this method when the process stops, after
    /// its requests have finished: the end of the runtime drops that task, and the session would stay
    /// open until a keeper checks it. Returns at once if no work was abandoned.
    pub async fn settle_abandoned_work(&self) {
        self.shared.database.finish_settling().await;
    }

    /// Returns a builder that can replace the client of LiveKit's room API and the clock.
    #[must_use]
    pub fn builder(config: Config) -> Builder {
        Builder { config, rooms: None, clock: Clock::System }
    }
}

/// Builds a [`Greenroom`], optionally with another room API client or clock. Created by
/// [`Greenroom::builder`].
pub struct Builder {
    config: Config,
    rooms: Option<Arc<dyn Rooms>>,
    clock: Clock,
}

impl Builder {
    /// Replaces the client of LiveKit's room API, for example by
    /// [`MemoryRooms`](crate::MemoryRooms).
    #[must_use]
    pub fn rooms(mut self, rooms: Arc<dyn Rooms>) -> Self {
        self.rooms = Some(rooms);
        self
    }

    /// Replaces the system clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the service.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`Greenroom::new`].
    pub fn build(self) -> Result<Greenroom, Error> {
        let Self { config, rooms, clock } = self;
        let rooms = match rooms {
            Some(rooms) => rooms,
            None => Arc::new(LiveKitRooms::new(&config.livekit).map_err(Error::LiveKit)?),
        };
        let shared = Shared {
            database: Arc::new(Database::new(&config.database_url, config.database_pool_size)?),
            livekit: LiveKit::new(&config, rooms),
            limits: StartLimits::new(
                config.max_active_sessions,
                config.starts_per_minute,
                config.database_pool_size,
            ),
            settings: SessionSettings {
                token_ttl: config.token_ttl,
                policy: PolicyDefaults {
                    agent_deadline: config.agent_deadline,
                    reconcile_every: config.reconcile_every,
                },
                retention_days: config.retention_days,
            },
            clock,
            room_names: RoomNameGenerator::random(),
            readiness_cache: ReadinessCache::default(),
            reads: BatchQueue::new((), MAX_IN_FLIGHT),
            waiters: Waiters::default(),
            breaker: Breaker::default(),
            room_nodes: RoomNodes::new(config.reconcile_every),
            buckets: Buckets::default(),
            schedule: Arc::default(),
            latest_webhook: Mutex::default(),
            opening_rooms: OpeningRooms::default(),
            search_requested: Notify::new(),
        };
        Ok(Greenroom { shared: Arc::new(shared) })
    }
}

impl LiveKit {
    fn new(config: &Config, rooms: Arc<dyn Rooms>) -> Self {
        let livekit = &config.livekit;
        Self {
            rooms,
            limiter: LiveKitLimiter::new(
                config.livekit_max_in_flight,
                config.livekit_calls_per_minute,
            ),
            signer: TokenSigner::new(&livekit.key),
            webhooks: WebhookVerifier::new(livekit),
            client_url: livekit.url.websocket(),
            on_down: config.on_livekit_down,
        }
    }
}
