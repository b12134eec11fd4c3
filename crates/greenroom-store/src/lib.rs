//! Greenroom's PostgreSQL: rows, queries, migrations.
//!
//! Every function takes a connection, never a pool: the use case owns the transaction. Every query
//! of the request path carries the organization.

pub mod connection;
pub mod error;
pub mod migrate;
pub mod organization;
mod position;
#[rustfmt::skip]
mod schema;
pub mod session;
pub mod start;
pub mod template;

pub use connection::connect;
pub use diesel_async::AsyncPgConnection;
pub use error::{Constraint, StoreError};
pub use organization::SessionLimit;
pub use position::Position;
pub use session::{Session, SessionFilter};
pub use start::{NewSession, Started};
pub use template::{SessionTemplate, Standing, TemplateFilter, TemplateSettings};
