//! The service as one value: what every use case works with.

use std::sync::Arc;

use greenroom_domain::SuffixWalk;
use greenroom_domain::template::TokenTtl;
use greenroom_livekit::{LiveKitConfig, LiveKitRooms, Rooms, TokenSigner};
use secrecy::SecretString;

use crate::Error;
use crate::clock::{Clock, Names, random_walk};
use crate::database::Database;
use crate::readiness::LastLook;

/// What Greenroom needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// PostgreSQL 15 or later; see [`migrate`](crate::migrate) for its schema.
    pub database_url: SecretString,
    /// The most connections this process opens to it.
    pub database_pool_size: usize,
    pub livekit: LiveKitConfig,
    /// The life of tokens whose template names none.
    pub token_ttl: TokenTtl,
}

impl Config {
    /// The configuration with its defaults: ten connections, tokens of an hour.
    #[must_use]
    pub fn new(database_url: SecretString, livekit: LiveKitConfig) -> Self {
        let token_ttl = TokenTtl::constant::<3600>();
        Self { database_url, database_pool_size: 10, livekit, token_ttl }
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
    pub(crate) names: Names,
    pub(crate) livekit_url: String,
    pub(crate) token_ttl: TokenTtl,
    pub(crate) last_look: LastLook,
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
        Builder { config, rooms: None, clock: Clock::System, room_names: random_walk() }
    }
}

/// Puts a [`Greenroom`] together from other parts than the usual.
pub struct Builder {
    config: Config,
    rooms: Option<Arc<dyn Rooms>>,
    clock: Clock,
    room_names: SuffixWalk,
}

impl Builder {
    /// Other rooms than a LiveKit server's, such as [`MemoryRooms`](crate::MemoryRooms).
    #[must_use]
    pub fn rooms(mut self, rooms: Arc<dyn Rooms>) -> Self {
        self.rooms = Some(rooms);
        self
    }

    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The walk that room names take, else a random one.
    #[must_use]
    pub fn room_names(mut self, walk: SuffixWalk) -> Self {
        self.room_names = walk;
        self
    }

    /// # Errors
    /// As [`Greenroom::new`].
    pub fn build(self) -> Result<Greenroom, Error> {
        let livekit = &self.config.livekit;
        let rooms = match self.rooms {
            Some(rooms) => rooms,
            None => Arc::new(LiveKitRooms::new(livekit).map_err(Error::LiveKit)?),
        };
        let shared = Shared {
            database: Database::new(&self.config.database_url, self.config.database_pool_size)?,
            rooms,
            signer: TokenSigner::new(&livekit.api_key, &livekit.api_secret),
            clock: self.clock,
            names: Names::new(self.room_names),
            livekit_url: livekit.url.websocket(),
            token_ttl: self.config.token_ttl,
            last_look: LastLook::default(),
        };
        Ok(Greenroom { shared: Arc::new(shared) })
    }
}
