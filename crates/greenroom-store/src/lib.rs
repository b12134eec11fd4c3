//! Greenroom's PostgreSQL: rows, queries, migrations.
//!
//! Every function takes a connection, never a pool: the use case owns the transaction. Every query
//! of the request path carries the organization.

pub mod claim;
pub mod commit;
pub mod connection;
pub mod error;
pub mod event;
pub mod fact;
pub mod finish;
pub mod idempotency;
pub mod migrate;
pub mod opening;
pub mod organization;
mod position;
mod refetch;
pub mod renewal;
pub mod retention;
#[rustfmt::skip]
mod schema;
pub mod session;
pub mod standing;
pub mod start;
pub mod template;

pub use claim::{Claim, Claims, First, Urgency};
pub use connection::connect;
pub use diesel::{ConnectionError, ConnectionResult};
pub use diesel_async::AsyncPgConnection;
pub use error::{Constraint, StoreError};
pub use event::SessionEvent;
pub use fact::Fact;
pub use finish::Finish;
pub use idempotency::{KeyClaim, KeyHolder, KeyKind, KeyPosition};
pub use opening::Opening;
pub use organization::SessionLimit;
pub use position::Position;
pub use renewal::Renewed;
pub use session::{Session, SessionFilter};
pub use standing::SessionStanding;
pub use start::{NewSession, Started, TokenLife};
pub use template::{FoldedName, SessionTemplate, Standing, TemplateFilter, TemplateSettings};
