//! Starting LiveKit sessions that really happen, as a library.
//!
//! [`Greenroom`] has one method a use case. Each takes whom it acts for, a [`Caller`] or an
//! organization, and checks ownership itself, so that nobody around it is trusted with that:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use greenroom_core::{Caller, Config, Greenroom, KeyPair, LiveKitConfig, StartRequest};
//!
//! let greenroom = Greenroom::new(Config::new(
//!     "postgres://localhost/greenroom".into(),
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
//! let backend = Caller::backend("0193b8a0-0000-7000-8000-000000000001".parse()?);
//! let request = StartRequest::new("0193b8a0-0000-7000-8000-000000000002".parse()?);
//! let start = greenroom.start(&backend, request).await?;
//! println!("{} {}", start.livekit_url, start.access_token);
//! # Ok(())
//! # }
//! ```

mod calls;
mod clock;
mod database;
mod end;
mod error;
mod greenroom;
mod housekeeping;
mod idempotency;
mod keeper;
mod limits;
mod opening;
mod page;
mod query;
mod readiness;
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
    Session, SessionFilter, SessionLimit, SessionTemplate, StoreError, TemplateFilter,
    TemplateSettings,
};
pub use limits::set_session_limit;
pub use page::{Listing, Page, PagePosition};
pub use readiness::{Fault, Readiness};
pub use start::{StartRequest, StartedSession};
pub use templates::{
    TemplateChange, TemplateSet, apply_templates, compare_templates, living_templates,
};
pub use timeline::TimelineEntry;
