//! The service as one value: what every use case works with.

use std::sync::Arc;

use greenroom_domain::template::{AgentDeadline, TokenTtl};
use greenroom_domain::{Seconds, SuffixSequence};
use greenroom_livekit::webhook::WebhookVerifier;
use greenroom_livekit::{LiveKitConfig, LiveKitRooms, Rooms, TokenSigner};
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::Error;
use crate::clock::{Clock, RoomNameGenerator, random_sequence};
use crate::database::Database;
use crate::limits::{LimitedOrganizations, StartRate};
use crate::livekit_limiter::LiveKitLimiter;
use crate::organization_locks::OrganizationLocks;
use crate::readiness::ReadinessCache;
use crate::wait::Waiters;

/// What Greenroom needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// PostgreSQL 15 or later; see [`migrate`](crate::migrate) for its schema.
    pub database_url: SecretString,
    /// The most connections this process opens to it.
    pub database_pool_size: usize,
    /// Where LiveKit is, for Greenroom and for its clients, and the key to it.
    pub livekit: LiveKitConfig,
    /// The life of tokens whose template names none.
    pub token_ttl: TokenTtl,
    /// How long an agent has to come whose template names no deadline.
    pub agent_deadline: AgentDeadline,
    /// How often a session with nothing under way is held against what LiveKit shows.
    pub reconcile_every: ReconcileInterval,
    /// What becomes of a start when LiveKit does not open its room.
    pub on_livekit_down: OnLiveKitDown,
    /// The most calls to LiveKit that are under way at once.
    pub livekit_max_in_flight: usize,
    /// How many calls to LiveKit a minute the keeper leaves room within; none is any number.
    pub livekit_calls_per_minute: Option<usize>,
    /// After how many days a session that is over is forgotten; none keeps all.
    pub retention_days: Option<i32>,
    /// How many sessions of an organization may live at once, unless its own row says otherwise;
    /// none is any number.
    pub max_active_sessions: Option<i32>,
    /// How many starts of an organization this process takes in a minute; none is any number.
    pub starts_per_minute: Option<u32>,
}

/// How often sessions are looked at with nothing under way: 1 s to an hour.
pub type ReconcileInterval = Seconds<1, 3_600>;

/// What a start does when LiveKit does not open its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLiveKitDown {
    /// It fails.
    Fail,
    /// It goes on as `on_join`, where the user's joining opens the room, unless there is something
    /// to hand to the agent that the user may not read.
    TokenOnly,
}

impl Config {
    /// The configuration with the defaults of the program.
    #[must_use]
    pub fn new(database_url: SecretString, livekit: LiveKitConfig) -> Self {
        Self {
            database_url,
            database_pool_size: 10,
            livekit,
            token_ttl: TokenTtl::constant::<3600>(),
            agent_deadline: AgentDeadline::constant::<30>(),
            reconcile_every: ReconcileInterval::constant::<30>(),
            on_livekit_down: OnLiveKitDown::Fail,
            livekit_max_in_flight: 64,
            livekit_calls_per_minute: None,
            retention_days: None,
            max_active_sessions: None,
            starts_per_minute: None,
        }
    }
}

/// The session service. Clones share everything.
#[derive(Clone)]
pub struct Greenroom {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) rooms: Arc<dyn Rooms>,
    pub(crate) signer: TokenSigner,
    pub(crate) clock: Clock,
    pub(crate) room_names: RoomNameGenerator,
    pub(crate) livekit_url: String,
    pub(crate) token_ttl: TokenTtl,
    pub(crate) readiness_cache: ReadinessCache,
    pub(crate) webhooks: WebhookVerifier,
    pub(crate) livekit_limiter: LiveKitLimiter,
    pub(crate) waiters: Waiters,
    /// A session has become due in this process.
    pub(crate) due: Notify,
    pub(crate) agent_deadline: AgentDeadline,
    pub(crate) reconcile_every: ReconcileInterval,
    pub(crate) on_livekit_down: OnLiveKitDown,
    pub(crate) retention_days: Option<i32>,
    pub(crate) max_active_sessions: Option<i32>,
    pub(crate) start_rate: Option<StartRate>,
    pub(crate) limited_organizations: LimitedOrganizations,
    pub(crate) organization_locks: OrganizationLocks,
}

impl Greenroom {
    /// The service against a real LiveKit. Connections are opened when they are first needed.
    ///
    /// # Errors
    /// When no client for LiveKit or pool for PostgreSQL can be made of this configuration.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::builder(config).build()
    }

    /// The service with some of its parts exchanged.
    #[must_use]
    pub fn builder(config: Config) -> Builder {
        Builder { config, rooms: None, clock: Clock::System, room_names: random_sequence() }
    }
}

/// Puts a [`Greenroom`] together from other parts than the usual.
pub struct Builder {
    config: Config,
    rooms: Option<Arc<dyn Rooms>>,
    clock: Clock,
    room_names: SuffixSequence,
}

impl Builder {
    /// Other rooms than a LiveKit server's, such as [`MemoryRooms`](crate::MemoryRooms).
    #[must_use]
    pub fn rooms(mut self, rooms: Arc<dyn Rooms>) -> Self {
        self.rooms = Some(rooms);
        self
    }

    /// Another clock than the machine's, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The walk that room names take, else a random one.
    #[must_use]
    pub fn room_names(mut self, sequence: SuffixSequence) -> Self {
        self.room_names = sequence;
        self
    }

    /// # Errors
    /// As [`Greenroom::new`].
    pub fn build(self) -> Result<Greenroom, Error> {
        let config = &self.config;
        let livekit = &config.livekit;
        let rooms = match self.rooms {
            Some(rooms) => rooms,
            None => Arc::new(LiveKitRooms::new(livekit).map_err(Error::LiveKit)?),
        };
        let shared = Shared {
            database: Database::new(&config.database_url, config.database_pool_size)?,
            rooms,
            signer: TokenSigner::new(&livekit.key),
            clock: self.clock,
            room_names: RoomNameGenerator::new(self.room_names),
            livekit_url: livekit.url.websocket(),
            token_ttl: config.token_ttl,
            readiness_cache: ReadinessCache::default(),
            webhooks: WebhookVerifier::new(livekit),
            livekit_limiter: LiveKitLimiter::new(
                config.livekit_max_in_flight,
                config.livekit_calls_per_minute,
            ),
            waiters: Waiters::default(),
            due: Notify::new(),
            agent_deadline: config.agent_deadline,
            reconcile_every: config.reconcile_every,
            on_livekit_down: config.on_livekit_down,
            retention_days: config.retention_days,
            max_active_sessions: config.max_active_sessions,
            start_rate: config.starts_per_minute.map(StartRate::new),
            limited_organizations: LimitedOrganizations::default(),
            organization_locks: OrganizationLocks::default(),
        };
        Ok(Greenroom { shared: Arc::new(shared) })
    }
}
