//! Starts LiveKit sessions and reconciles them with LiveKit, as a library.
//!
//! [`Greenroom`] has one method per use case. Each method takes the [`Caller`] and checks itself what
//! the caller may do, with the rules of [`domain::caller`]: a caller never reaches the sessions or
//! templates of another organization, and an end user never those of another user. [`Admin`] contains
//! the work on the database that needs no LiveKit.
//!
//! # Embedding
//!
//! Create one [`Greenroom`] and share its clones, apply the migrations, and run the keeper (the
//! loop that reconciles sessions with LiveKit) for as long as the process runs:
//!
//! ```no_run
//! use greenroom_core::{Caller, Config, Greenroom, KeyPair, LiveKitConfig, StartRequest};
//!
//! # async fn shutdown_signal() {}
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let greenroom = Greenroom::new(Config::new(
//!     "postgres://localhost/greenroom".parse()?,
//!     LiveKitConfig::new(
//!         "ws://localhost:7880".parse()?,
//!         KeyPair::new("key".parse()?, "a secret of at least thirty-two bytes".parse()?),
//!     ),
//! ))?;
//! greenroom.admin().migrate().await?;
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
//! `examples/embed.rs` starts, watches and ends a session. `examples/axum.rs` is a
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
//!   completes. After the last request, call [`Greenroom::settle_abandoned_work`].
//!
//! The crate requires a tokio runtime and has no feature flags. It opens connections to PostgreSQL
//! when they are first needed, on the runtime that called [`Greenroom::new`].

#![deny(missing_docs)]

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod admin;
mod batch_queue;
mod bulkhead;
mod clock;
mod database;
mod end;
mod error;
mod greenroom;
mod join_token;
mod keeper;
mod limits;
mod livekit_limiter;
mod opening_rooms;
mod page;
mod query;
mod readiness;
mod reads;
mod retention;
mod room_setup;
mod start;
mod task;
mod templates;
mod timeline;
mod wait;
mod webhooks;

pub use greenroom_domain::{self as domain, Caller, ReconcileInterval};
pub use greenroom_livekit::webhook::InvalidWebhook;
pub use greenroom_livekit::{
    AgentDispatch, ApiKey, ApiSecret, KeyPair, LiveKitConfig, LiveKitError, MemoryRooms, RoomList,
    RoomSettings, Rooms, ServerUrl,
};
pub use greenroom_store::{
    Constraint, DataLoss, DatabaseUrl, Reversal, RevertConsent, RevertPermission, RevertRefusal,
    Session, SessionFilter, SessionLimit, SessionTemplate, StoreError, TemplateFilter,
    TemplateSettings, TranslatedMessages,
};

pub use self::admin::Admin;
pub use self::clock::Clock;
pub use self::error::Error;
pub use self::greenroom::{Builder, Config, Greenroom, OnLiveKitDown};
pub use self::join_token::StartedSession;
pub use self::limits::Limits;
pub use self::page::{Cursor, Page, PageRequest, PageStart};
pub use self::readiness::{Fault, Readiness};
pub use self::start::StartRequest;
pub use self::templates::{TemplateChange, TemplateSet};
pub use self::timeline::TimelineEntry;
