//! Starting LiveKit sessions that really happen, as a library.
//!
//! [`Greenroom`] has one method a use case. Each takes whom it acts for, a [`Caller`] or an
//! organization, and checks ownership itself, so that nobody around it is trusted with that.
//!
//! # Embedding it
//!
//! Bring the schema up to date, make one [`Greenroom`] and share its clones, and let it keep what
//! it starts for as long as the process runs:
//!
//! ```no_run
//! use greenroom_core::{
//!     Caller, Config, Greenroom, KeyPair, LiveKitConfig, StartRequest, migrate,
//! };
//!
//! # async fn asked_to_stop() {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let database_url = "postgres://localhost/greenroom";
//! migrate::run(database_url).await?;
//! let greenroom = Greenroom::new(Config::new(
//!     database_url.into(),
//!     LiveKitConfig {
//!         url: "ws://localhost:7880".parse()?,
//!         api_url: "http://localhost:7880".parse()?,
//!         key: KeyPair {
//!             api_key: "key".into(),
//!             api_secret: "a secret of at least thirty-two bytes".into(),
//!         },
//!         previous_key: None,
//!     },
//! ))?;
//! let keeping = greenroom.clone();
//! let keeper = tokio::spawn(async move { keeping.keep(asked_to_stop()).await });
//!
//! let backend = Caller::backend("0193b8a0-0000-7000-8000-000000000001".parse()?);
//! let request = StartRequest::new("0193b8a0-0000-7000-8000-000000000002".parse()?);
//! let started = greenroom.start(&backend, request).await?;
//! println!("{} {}", started.livekit_url, started.access_token);
//!
//! keeper.await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/embed.rs` is the least program; `examples/axum.rs` a server under another web
//! framework than Greenroom's own program has, with LiveKit's webhooks and a graceful end.
//!
//! # What is left to whoever embeds it
//!
//! - **Who calls.** A [`Caller`] is taken at its word: make one of what your own authentication has
//!   verified, [`Caller::backend`] for a service that acts for all users of an organization, and
//!   [`Caller::end_user`] for a user, who is then kept to their own sessions.
//! - **The keeper.** A session is looked after by [`Greenroom::keep`], in this process or in any
//!   other on the same database, `greenroom serve` among them. Without one, agents that get lost
//!   are not asked for again, and nothing expires. One that panics should take its process along.
//! - **LiveKit's webhooks**, by [`Greenroom::webhook`], which verifies them: without, what LiveKit
//!   tells is seen at the keeper's next look.
//! - **Failures.** [`Error`] says what happened and knows no status code. The causes behind it are
//!   its sources, and are for the log, not for a caller.
//! - **The environment, the log's form, the process's end.** Core reads no variable, logs by
//!   `tracing`, and stops when what it was given to wait for says so.
//!
//! It runs on tokio, and has no feature flags. Connections to PostgreSQL are opened when they are
//! first needed, on the runtime that [`Greenroom::new`] was called on.

#![deny(missing_docs)]

mod clock;
mod database;
mod end;
mod error;
mod greenroom;
mod idempotency;
mod keeper;
mod limits;
mod livekit_limiter;
mod organization_locks;
mod page;
mod query;
mod readiness;
mod retention;
mod room_setup;
mod start;
mod templates;
mod timeline;
mod token;
mod wait;
mod webhooks;

pub use clock::Clock;
pub use error::Error;
pub use greenroom::{Builder, Config, Greenroom, OnLiveKitDown};
pub use greenroom_domain as domain;
pub use greenroom_domain::Caller;
pub use greenroom_livekit::{
    Dispatch, KeyPair, LiveKitConfig, LiveKitError, MemoryRooms, RoomSettings, Rooms, ServerUrl,
};
pub use greenroom_store::connection::check as check_database_url;
pub use greenroom_store::migrate;
pub use greenroom_store::{
    PageStart, Session, SessionFilter, SessionLimit, SessionTemplate, StoreError, TemplateFilter,
    TemplateSettings,
};
pub use limits::{Limits, set_session_limit};
pub use page::{Cursor, Page, PageRequest};
pub use readiness::{Fault, Readiness};
pub use start::{StartRequest, StartedSession};
pub use templates::{
    TemplateChange, TemplateSet, apply_templates, compare_templates, current_templates,
};
pub use timeline::TimelineEntry;
