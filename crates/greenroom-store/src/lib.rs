//! Greenroom's PostgreSQL: rows, queries and migrations.
//!
//! Every function takes a connection, never a pool, because the use case owns the transaction.
//! Every query on the request path filters by organization.

pub mod claim;
pub mod commit;
pub mod connection;
pub mod error;
pub mod event;
pub mod fact;
pub mod idempotency;
pub mod migrate;
pub mod organization;
mod page_start;
pub mod reissue;
mod resume;
pub mod retention;
#[rustfmt::skip]
mod schema;
pub mod session;
pub mod session_setup;
pub mod session_state;
mod sql;
pub mod start;
pub mod template;

pub use diesel::{ConnectionError, ConnectionResult};
pub use diesel_async::AsyncPgConnection;

pub use claim::{Claim, ClaimBatch, ClaimOrder, PolicyDefaults, Urgency};
pub use connection::connect;
pub use error::{Constraint, StoreError};
pub use event::SessionEvent;
pub use fact::{Subject, record};
pub use idempotency::{KeyClaim, KeyCursor, KeyHolder, StartKey};
pub use organization::{SessionLimit, SessionLock};
pub use page_start::PageStart;
pub use reissue::TokenReissue;
pub use session::{Session, SessionFilter};
pub use session_setup::SessionSetup;
pub use session_state::SessionState;
pub use start::{NewSession, StartedRow, TokenLifetime};
pub use template::{
    FoldedName, SessionTemplate, TemplateAvailability, TemplateFilter, TemplateSettings,
};
