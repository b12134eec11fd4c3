//! Starting LiveKit sessions that really happen, as a library.
//!
//! [`Greenroom`] has one method a use case. Each takes whom it acts for, a [`Caller`] or an
//! organization, and checks ownership itself, so that nobody around it is trusted with that:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use greenroom_core::{Caller, Config, Greenroom, LiveKitConfig, StartRequest};
//!
//! let greenroom = Greenroom::new(Config::new(
//!     "postgres://localhost/greenroom".into(),
//!     LiveKitConfig {
//!         url: "ws://localhost:7880".parse()?,
//!         api_url: "http://localhost:7880".parse()?,
//!         api_key: "key".into(),
//!         api_secret: "a secret of at least thirty-two bytes".into(),
//!     },
//! ))?;
//! let backend = Caller::backend("0193b8a0-0000-7000-8000-000000000001".parse()?);
//! let request = StartRequest::new("0193b8a0-0000-7000-8000-000000000002".parse()?);
//! let start = greenroom.start(&backend, request).await?;
//! println!("{} {}", start.livekit_url, start.access_token);
//! # Ok(())
//! # }
//! ```

mod clock;
mod database;
mod error;
mod greenroom;
mod limits;
mod page;
mod query;
mod readiness;
mod start;
mod templates;

pub use clock::Clock;
pub use error::Error;
pub use greenroom::{Builder, Config, Greenroom};
pub use greenroom_domain as domain;
pub use greenroom_domain::Caller;
pub use greenroom_livekit::{
    Dispatch, LiveKitConfig, LiveKitError, MemoryRooms, RoomSettings, Rooms, ServerUrl,
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
