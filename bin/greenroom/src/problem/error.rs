//! What can happen to a use case, as the problem that clients see.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use greenroom_core::{Error, LiveKitError, StoreError};

use super::{Code, FieldError, Problem, Quota};

/// When to ask again where another session has to end first, which nobody knows before.
const SESSION_ENDS_SECONDS: u64 = 10;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::TemplateNotFound(id) => Self::new(
                Code::TemplateNotFound,
                format!("No session template {id} in this organization."),
            ),
            Error::TemplateForbidden(id) => Self::new(
                Code::TemplateForbidden,
                format!("Session template {id} belongs to another organization."),
            ),
            Error::TemplateNameTaken(name) => Self::new(
                Code::TemplateNameTaken,
                format!(
                    "This organization has a session template named {:?} already.",
                    name.as_str()
                ),
            ),
            Error::TemplateContradicts(contradictions) => Self::invalid(
                contradictions
                    .iter()
                    .map(|(field, invalid)| FieldError::of(field, invalid))
                    .collect(),
            ),
            Error::OtherAgent => Self::new(
                Code::NotConfigurable,
                "The agent in room_config is not the template's; name that one, or leave it out.",
            ),
            Error::TokenTooLong => Self::invalid(
                ["user_id", "participant_name", "participant_attributes"]
                    .map(|field| {
                        FieldError::new(
                            field,
                            "must be shorter: the token would have more than 6 KB",
                        )
                    })
                    .to_vec(),
            ),
            Error::UserMismatch => Self::new(
                Code::UserForbidden,
                "The token is an end user's, who may name nobody but themselves.",
            ),
            Error::MetadataForbidden => Self::new(
                Code::UserForbidden,
                "The token is an end user's, and metadata is for backends: an agent trusts it.",
            ),
            Error::InvalidCursor => Self::new(
                Code::InvalidCursor,
                "The cursor is not of this list. Follow the Link header as it is, or start at the first page.",
            ),
            Error::SessionOver(id) => {
                Self::new(Code::SessionOver, format!("Session {id} is over. Start another."))
            }
            Error::IdempotencyKeyReused => Self::new(
                Code::IdempotencyKeyReused,
                "The Idempotency-Key was used for another request. Take a new key for a new start.",
            ),
            Error::TooManyActiveSessions { limit } => Self::too_many_active_sessions(limit),
            Error::RateLimited { per_minute, next_in, all_in } => {
                let quota = Quota {
                    limit: per_minute.into(),
                    next: whole_seconds(next_in),
                    reset: whole_seconds(all_in),
                };
                let detail = format!(
                    "This organization may start {per_minute} sessions a minute; start again in {} s.",
                    quota.next
                );
                Self { quota: Some(quota), ..Self::new(Code::RateLimited, detail) }
            }
            Error::InvalidWebhook(why) => {
                tracing::warn!(reason = %why, "a webhook was refused");
                Self::new(Code::Unauthenticated, "LiveKit did not sign this webhook.")
            }
            Error::LiveKit(error) => Self::livekit(&error),
            Error::Store(error) => Self::store(&error),
            Error::Overloaded | Error::ShuttingDown => {
                tracing::warn!(error = %error, "a request was not served");
                let why = match error {
                    Error::ShuttingDown => "This Greenroom is stopping; try again.",
                    _ => "Too many requests at once; try again.",
                };
                Self::new(Code::Overloaded, why)
            }
        }
    }
}

impl Problem {
    fn too_many_active_sessions(limit: i32) -> Self {
        let (next, reset) = (SESSION_ENDS_SECONDS, SESSION_ENDS_SECONDS);
        let quota = Quota { limit: limit.unsigned_abs().into(), next, reset };
        let detail = format!(
            "This organization has as many sessions as it may have at once: {limit}. End one, or wait."
        );
        Self { quota: Some(quota), ..Self::new(Code::TooManyActiveSessions, detail) }
    }

    /// LiveKit's own words are in the log of the start; they may name its addresses.
    fn livekit(error: &LiveKitError) -> Self {
        match error {
            LiveKitError::Unavailable(_) | LiveKitError::NoNode(_) => Self::new(
                Code::LiveKitUnavailable,
                "LiveKit cannot be reached, so the room was not opened. Start again.",
            ),
            LiveKitError::Timeout => Self::new(
                Code::LiveKitTimeout,
                "LiveKit did not answer in time, so the room may not be open. Start again.",
            ),
            LiveKitError::Refused(_) | LiveKitError::NotFound => Self::new(
                Code::LiveKitError,
                "LiveKit refused to open the room. Its key may be wrong: the log has its answer.",
            ),
        }
    }

    fn store(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Timeout(_) => {
                tracing::warn!(error = %Chain(error), "the database does not answer");
                Self::new(Code::DatabaseUnavailable, "The database does not answer; try again.")
            }
            StoreError::Conflict(_) | StoreError::Query(_) => Self::internal(&Chain(error)),
        }
    }
}

/// Seconds to wait: never too few.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// An error with all its causes, in one line.
struct Chain<'a>(&'a dyn StdError);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
