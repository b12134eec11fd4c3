//! What can go wrong with the database, by what the caller can do about it.

use diesel::ConnectionError;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A uniqueness that a write ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// Another session has this room name: take the next one.
    RoomName,
    /// Another living template of the organization has this name.
    TemplateName,
}

/// A query that did not succeed. That a row is absent is no error but an `Option`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The write would break a uniqueness.
    #[error("the write conflicts with an existing row ({0:?})")]
    Conflict(Constraint),
    /// There is no server to talk to, or not one that can write: later it may go.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The statement ran into its time-out.
    #[error("the database did not answer in time")]
    Timeout(#[source] DieselError),
    /// Anything else: a fault of Greenroom's.
    #[error("the database refused a query")]
    Query(#[source] DieselError),
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        let DieselError::DatabaseError(kind, information) = &error else {
            return match error {
                DieselError::BrokenTransactionManager => Self::Unavailable(error.into()),
                _ => Self::Query(error),
            };
        };
        match kind {
            DatabaseErrorKind::UniqueViolation => match information.constraint_name() {
                Some("sessions_room_name") => Self::Conflict(Constraint::RoomName),
                Some("session_templates_living_name") => Self::Conflict(Constraint::TemplateName),
                _ => Self::Query(error),
            },
            // ReadOnlyTransaction: this server was demoted, and another is primary by now.
            DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::ReadOnlyTransaction => Self::Unavailable(error.into()),
            _ => Self::by_message(error),
        }
    }
}

impl From<ConnectionError> for StoreError {
    fn from(error: ConnectionError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl StoreError {
    /// diesel keeps the message of these errors, but not their SQLSTATE. A server whose messages
    /// are translated has them told as [`StoreError::Query`].
    fn by_message(error: DieselError) -> Self {
        // SQLSTATE 57P01, 57P02 and 57P03, 53300, 57014
        const SHUTDOWN_MESSAGES: [&str; 4] = [
            "terminating connection",
            "the database system is",
            "remaining connection slots",
            "sorry, too many clients",
        ];
        let message = error.to_string();
        if SHUTDOWN_MESSAGES.iter().any(|known| message.starts_with(known)) {
            Self::Unavailable(error.into())
        } else if message.starts_with("canceling statement due to") {
            Self::Timeout(error)
        } else {
            Self::Query(error)
        }
    }
}
