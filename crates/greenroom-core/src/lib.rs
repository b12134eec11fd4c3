//! Starts LiveKit sessions and reconciles them with LiveKit, as a library.
//!
//! [`Greenroom`] has one method per use case. Each method takes the [`Caller`] or the organization
//! that it acts for, and checks ownership itself: a caller never reaches the sessions or templates
//! of another organization.
//!
//! # Embedding
//!
//! Apply the migrations, create one [`Greenroom`] and share its clones, and run the keeper (the
//! loop that reconciles sessions with LiveKit) for as long as the process runs:
//!
//! ```no_run
//! use greenroom_core::{
//!     Caller, Config, Greenroom, KeyPair, LiveKitConfig, StartRequest, migrate,
//! };
//!
//! # async fn shutdown_signal() {}
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
//! let keeper = tokio::spawn({
//!     let greenroom = greenroom.clone();
//!     async move { greenroom.run_keeper(shutdown_signal()).await }
//! });
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
//! `examples/embed.rs` is the smallest program that starts a session. `examples/axum.rs` is a
//! server on axum that also receives LiveKit's webhooks and shuts down gracefully.
//!
//! # Responsibilities of the embedding program
//!
//! - **Authentication.** Greenroom trusts the [`Caller`] that it is given. Create one only from
//!   verified credentials: [`Caller::backend`] for a service that acts for all users of an
//!   organization, [`Caller::end_user`] for a user, who then reaches only their own sessions.
//! - **The keeper.** Run [`Greenroom::run_keeper`] in this process or in another process on the
//!   same database, such as `greenroom serve`. Without a keeper, a lost agent is not dispatched
//!   again and no session expires. If the keeper panics, stop the process.
//! - **Webhooks.** Pass LiveKit's webhooks to [`Greenroom::receive_webhook`], which verifies them.
//!   Without webhooks, a change in LiveKit is noticed when the keeper next checks the session.
//! - **Errors.** [`Error`] describes a failure and contains no status code. The sources of an error
//!   may name hosts and users: log them, and do not return them to callers.
//! - **Environment, log output and shutdown.** This crate reads no environment variable and logs
//!   through `tracing`. The keeper stops when the future that [`Greenroom::run_keeper`] takes
//!   completes.
//!
//! The crate requires a tokio runtime and has no feature flags. It opens connections to PostgreSQL
//! when they are first needed, on the runtime that called [`Greenroom::new`].

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

pub use greenroom_domain::{self as domain, Caller};
pub use greenroom_livekit::{
    Dispatch, KeyPair, LiveKitConfig, LiveKitError, MemoryRooms, RoomSettings, Rooms, ServerUrl,
};
pub use greenroom_store::connection::check as check_database_url;
pub use greenroom_store::{
    PageStart, Session, SessionFilter, SessionLimit, SessionTemplate, StoreError, TemplateFilter,
    TemplateSettings, migrate,
};

pub use self::clock::Clock;
pub use self::error::Error;
pub use self::greenroom::{Builder, Config, Greenroom, OnLiveKitDown, ReconcileInterval};
pub use self::limits::{Limits, set_session_limit};
pub use self::page::{Cursor, Page, PageRequest};
pub use self::readiness::{Fault, Readiness};
pub use self::start::{StartRequest, StartedSession};
pub use self::templates::{
    TemplateChange, TemplateSet, apply_templates, compare_templates, current_templates,
};
pub use self::timeline::TimelineEntry;
