//! Errors of the database, distinguished by what the caller can do about them.

use diesel::ConnectionError;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use greenroom_domain::ErrorChain;

/// A unique constraint that a write violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// Another session has this room name. Retry with a new name.
    RoomName,
    /// Another template of the organization that is not archived has this name.
    TemplateName,
}

/// The cause of an error. It is boxed, because core re-exports [`StoreError`], and no type of diesel
/// is part of core's API.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failed query. An absent row is not an error; functions return `None` for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The write violates a unique constraint.
    #[error("the write conflicts with an existing row ({0:?})")]
    Conflict(Constraint),
    /// No server accepts connections and writes. A later attempt may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
    /// The server did not execute the statement, because it was demoted to a standby or lacks disk
    /// space or memory. A later attempt may succeed.
    #[error("the database is read-only or lacks resources")]
    Refused(#[source] Cause),
    /// PostgreSQL canceled the statement, because of `lock_timeout` or `statement_timeout`, or other
    /// transactions were still open after a wait.
    #[error("the database did not respond in time")]
    Timeout(#[source] Cause),
    /// A migration could not be applied or reverted. The migrations before it stay applied or
    /// reverted.
    #[error("migration {name} failed; the migrations before it have taken effect{advice}")]
    Migration {
        /// Version and name, such as `2026-11-22-000001_create_organizations`.
        name: String,
        /// The remedy for the operator: empty, or a clause that starts with a semicolon.
        advice: &'static str,
        /// The error of PostgreSQL.
        #[source]
        cause: Cause,
    },
    /// A row has a value that this version does not know or that breaks a rule: it was written by a
    /// newer version or by hand.
    #[error("a stored value cannot be decoded")]
    Undecodable(#[source] Cause),
    /// Any other failure: a bug in Greenroom, or a translated message that could not be classified.
    #[error("the database rejected a query")]
    Query(#[source] Cause),
}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        let DieselError::DatabaseError(kind, information) = &error else {
            return match error {
                DieselError::BrokenTransactionManager => Self::Unavailable(error.into()),
                DieselError::DeserializationError(cause) => Self::Undecodable(cause),
                _ => Self::Query(error.into()),
            };
        };
        match kind {
            DatabaseErrorKind::UniqueViolation => match information.constraint_name() {
                Some("sessions_room_name") => Self::Conflict(Constraint::RoomName),
                Some("session_templates_living_name") => Self::Conflict(Constraint::TemplateName),
                _ => Self::Query(error.into()),
            },
            DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection => {
                Self::Unavailable(error.into())
            }
            // SQLSTATE 25006.
            DatabaseErrorKind::ReadOnlyTransaction => Self::Refused(error.into()),
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
    /// Whether the statement may or may not have been executed, because the server went away or did
    /// not respond.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the session of this connection may no longer be usable, although other connections
    /// are.
    ///
    /// diesel keeps the SQLSTATE of only a few errors, and the message may be translated.
    /// Therefore, returns true for every error that diesel does not classify: a pooler may have
    /// assigned the connection to another session (26000), a migration may have changed a table
    /// that a prepared statement reads (0A000), or the server may be shutting down (57P01). Such
    /// errors are rare, and a new connection is cheap.
    #[must_use]
    pub fn requires_new_connection(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Query(cause) => matches!(
                cause.downcast_ref::<DieselError>(),
                Some(DieselError::DatabaseError(DatabaseErrorKind::Unknown, _))
            ),
            _ => false,
        }
    }

    /// Reclassifies an error after the connection turned out to be lost: [`Self::Query`] becomes
    /// [`Self::Unavailable`].
    #[must_use]
    pub fn with_lost_connection(self) -> Self {
        match self {
            Self::Query(cause) => Self::Unavailable(cause),
            error => error,
        }
    }

    /// The error for another caller of the same statement. Its cause is a text.
    #[must_use]
    pub fn for_other_caller(&self) -> Self {
        let text = |cause: &Cause| Cause::from(ErrorChain(&**cause).to_string());
        match self {
            Self::Unavailable(cause) => Self::Unavailable(text(cause)),
            Self::Refused(cause) => Self::Refused(text(cause)),
            Self::Timeout(cause) => Self::Timeout(text(cause)),
            Self::Undecodable(cause) => Self::Undecodable(text(cause)),
            error => Self::Query(ErrorChain(error).to_string().into()),
        }
    }

    /// Classifies an error by its English message, because diesel does not keep the SQLSTATE. If
    /// the server's messages are translated, and the role may not choose their language, these
    /// errors become [`StoreError::Query`].
    fn by_message(error: DieselError) -> Self {
        // In order, SQLSTATE 57P01 and 57P02; 57P03; 53300; 53300.
        const UNAVAILABLE_MESSAGES: [&str; 4] = [
            "terminating connection",
            "the database system is",
            "remaining connection slots",
            "sorry, too many clients",
        ];
        // In order, SQLSTATE 53100; 53100; 53200; 53400. PostgreSQL may put the file before the
        // reason.
        const REFUSED_MESSAGES: [&str; 4] = [
            "No space left on device",
            "could not extend file",
            "out of memory",
            "temporary file size exceeds temp_file_limit",
        ];
        let message = error.to_string();
        if UNAVAILABLE_MESSAGES.iter().any(|known| message.starts_with(known)) {
            Self::Unavailable(error.into())
        } else if REFUSED_MESSAGES
            .iter()
            .any(|known| message.starts_with(known) || message.ends_with(known))
        {
            Self::Refused(error.into())
        } else if message.starts_with("canceling statement due to") {
            // SQLSTATE 57014.
            Self::Timeout(error.into())
        } else {
            Self::Query(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: DatabaseErrorKind, message: &str) -> StoreError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned())).into()
    }

    #[test]
    fn unknown_message_closes_the_connection() {
        for message in ["Prepared-Statement »s0« existiert nicht", "prepared statement", ""] {
            let unknown = error(DatabaseErrorKind::Unknown, message);
            assert!(matches!(unknown, StoreError::Query(_)), "{message}: {unknown:?}");
            assert!(unknown.requires_new_connection(), "{message}");
            assert!(unknown.with_lost_connection().is_outcome_unknown(), "{message}");
        }
    }

    #[test]
    fn read_only_server_has_not_written() {
        let read_only = error(DatabaseErrorKind::ReadOnlyTransaction, "");
        assert!(!read_only.is_outcome_unknown(), "{read_only:?}");
    }
}
