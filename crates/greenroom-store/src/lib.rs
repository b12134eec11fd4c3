//! Greenroom's PostgreSQL: rows, queries and migrations.
//!
//! Every function takes a connection, never a pool, because the use case owns the transaction.
//! Every query on the request path filters by organization.

#![deny(missing_docs)]

pub mod bucket;
pub mod commit;
pub mod connection;
mod detail;
pub mod due;
pub mod error;
pub mod event;
pub mod fact;
pub mod idempotency;
mod listed_keys;
mod listed_row;
mod message_language;
pub mod migrate;
pub mod new_session;
pub mod open_sessions;
pub mod organization;
pub mod overdue;
mod page_start;
pub mod reissue;
mod reschedule;
pub mod retention;
pub mod revert;
#[rustfmt::skip]
mod schema;
pub mod session;
pub mod session_setup;
pub mod session_state;
pub mod snapshot;
mod sql;
mod start;
pub mod template;
pub mod unreadable;

pub use diesel::{ConnectionError, ConnectionResult};
pub use diesel_async::AsyncPgConnection;

pub use self::bucket::{HeldBuckets, ReplicaId};
pub use self::connection::{DatabaseUrl, connect};
pub use self::due::{DueOrder, DueRange, DueSearch, ScheduledSession, SessionKey};
pub use self::error::{Constraint, StoreError};
pub use self::event::SessionEvent;
pub use self::fact::{
    OpenedRoom, OpenedRooms, Recorded, Subject, record, record_own, record_room_opened,
    record_rooms_opened,
};
pub use self::idempotency::{Fingerprint, KeyClaim, KeyCursor, KeyHolder, StartKey};
pub use self::listed_row::ListedRow;
pub use self::message_language::{TranslatedMessages, translated_messages};
pub use self::new_session::{NewSession, StartDefaults};
pub use self::organization::{SessionLimit, SessionLock};
pub use self::page_start::PageStart;
pub use self::reissue::TokenReissue;
pub use self::revert::{DataLoss, Reversal, RevertConsent, RevertPermission, RevertRefusal};
pub use self::session::{Session, SessionFilter};
pub use self::session_setup::{SessionSetup, StartedRow};
pub use self::session_state::SessionState;
pub use self::snapshot::{PolicyDefaults, SessionSnapshot, SnapshotBatch};
pub use self::template::{
    FoldedName, SessionTemplate, TemplateAvailability, TemplateFilter, TemplateSettings,
};
pub use self::unreadable::UnreadableSession;
