//! Converts each error of `greenroom-core` to the problem that clients see.

use std::time::Duration;

use greenroom_core::domain::template::Contradiction;
use greenroom_core::domain::{ErrorChain, SessionCount, SessionTemplateId, TemplateName};
use greenroom_core::{Error, InvalidWebhook, LiveKitError, StoreError};

use super::{Code, FieldError, Problem, Quota};

/// `Retry-After` for a limit of open sessions. The time when a session ends is unknown.
const SESSION_LIMIT_RETRY_SECONDS: u64 = 10;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::TemplateNotFound(id) => Self::template_not_found(id),
            Error::TemplateForbidden(id) => Self::template_forbidden(id),
            Error::TemplateUnusable(id) => Self::template_unusable(id),
            Error::TemplateNameTaken(name) => Self::template_name_taken(&name),
            Error::TemplateContradicts(contradictions) => {
                let field = |(field, invalid): &Contradiction| FieldError::of(field, invalid);
                Self::invalid(contradictions.iter().map(field).collect())
            }
            Error::TokenTooLong => Self::token_too_long(),
            Error::SessionOver(id) => {
                Self::new(Code::SessionOver, format!("Session {id} is over. Start a new session."))
            }
            Error::TooManyActiveSessions { limit } => Self::too_many_active_sessions(limit),
            Error::RateLimited { per_minute, retry_after, reset_after } => {
                Self::rate_limited(per_minute, retry_after, reset_after)
            }
            Error::InvalidWebhook(error) => Self::invalid_webhook(error),
            Error::LiveKit(error) => Self::livekit(&error),
            Error::Store(error) => Self::store(&error),
            Error::Overloaded | Error::ShuttingDown => Self::refused(&error),
            error => match fixed_detail(&error) {
                Some((code, detail)) => Self::new(code, detail),
                // `Error` is non-exhaustive.
                None => Self::internal(&ErrorChain(&error)),
            },
        }
    }
}

/// Returns the code and the detail of an error whose detail does not depend on data.
fn fixed_detail(error: &Error) -> Option<(Code, &'static str)> {
    Some(match error {
        Error::AgentMismatch => (
            Code::NotConfigurable,
            "The agent in room_config is not the template's agent. Remove it from the request.",
        ),
        Error::BackendOnly => (
            Code::UserForbidden,
            "This route is for backends, but the token belongs to an end user. Use a backend's token.",
        ),
        Error::UserMismatch => (
            Code::UserForbidden,
            "The token belongs to an end user, but the request names another user. Remove that user.",
        ),
        Error::MetadataForbidden => (
            Code::UserForbidden,
            "The token belongs to an end user, but only a backend may set metadata, because the agent \
             trusts it. Remove metadata.",
        ),
        Error::InvalidCursor => (
            Code::InvalidCursor,
            "The cursor is malformed or belongs to another list. Follow the Link header unchanged, or \
             request the first page.",
        ),
        Error::IdempotencyKeyReused => (
            Code::IdempotencyKeyReused,
            "The Idempotency-Key was already used for a different request. Use a new key.",
        ),
        _ => return None,
    })
}

/// Templates.
impl Problem {
    fn template_not_found(id: SessionTemplateId) -> Self {
        Self::new(
            Code::TemplateNotFound,
            format!("This organization has no session template {id}, or it is archived."),
        )
    }

    fn template_forbidden(id: SessionTemplateId) -> Self {
        Self::new(
            Code::TemplateForbidden,
            format!("Session template {id} belongs to another organization. Use your own."),
        )
    }

    /// Retryable: in a rolling update, a process of the newer version may receive the next attempt.
    fn template_unusable(id: SessionTemplateId) -> Self {
        Self::new(
            Code::NotReady,
            format!(
                "Session template {id} has a setting that this version of Greenroom does not know or \
                 that exceeds its limits. A newer version can start it. Try again after the update, or \
                 change the template."
            ),
        )
    }

    fn template_name_taken(name: &TemplateName) -> Self {
        Self::new(
            Code::TemplateNameTaken,
            format!(
                "This organization already has a session template named {:?}. Choose a name that \
                 differs in more than case.",
                name.as_str()
            ),
        )
    }
}

/// Starts.
impl Problem {
    fn token_too_long() -> Self {
        let field = |field| {
            FieldError::new(
                field,
                "must be shorter, because the token would be longer than 6 KiB; shortening another \
                 listed field also helps",
            )
        };
        Self::invalid(["user_id", "participant_name", "participant_attributes"].map(field).to_vec())
    }

    fn rate_limited(per_minute: u32, retry_after: Duration, reset_after: Duration) -> Self {
        let quota = Quota {
            limit: per_minute.into(),
            retry_after: whole_seconds(retry_after),
            reset_after: whole_seconds(reset_after),
        };
        let detail = format!(
            "This organization may start {per_minute} sessions per minute. Try again in {} s.",
            quota.retry_after
        );
        Self { quota: Some(quota), ..Self::new(Code::RateLimited, detail) }
    }

    fn too_many_active_sessions(limit: SessionCount) -> Self {
        let quota = Quota {
            limit: limit.get().unsigned_abs().into(),
            retry_after: SESSION_LIMIT_RETRY_SECONDS,
            reset_after: SESSION_LIMIT_RETRY_SECONDS,
        };
        let detail = format!(
            "This organization has reached its limit of open sessions, which is {limit}. End a \
             session, or wait until one ends."
        );
        Self { quota: Some(quota), ..Self::new(Code::TooManyActiveSessions, detail) }
    }
}

/// Failures of Greenroom and of the servers that it uses.
impl Problem {
    fn invalid_webhook(error: InvalidWebhook) -> Self {
        tracing::warn!(error = %error, "refused webhook");
        let detail =
            "The webhook could not be verified: its signature, body hash or body is invalid.";
        Self::new(Code::Unauthenticated, detail)
    }

    fn refused(error: &Error) -> Self {
        tracing::warn!(error = %error, "refused request");
        let detail = match error {
            Error::ShuttingDown => "This process is shutting down. Try again.",
            _ => {
                "Too many concurrent requests: no database connection or organization lock became \
                 free in time, or other starts kept taking the idempotency key. Try again."
            }
        };
        Self::new(Code::Overloaded, detail)
    }

    /// The detail omits LiveKit's response, because it may contain internal addresses.
    fn livekit(error: &LiveKitError) -> Self {
        match error {
            LiveKitError::Unavailable(_) | LiveKitError::NoNode(_) => Self::new(
                Code::LiveKitUnavailable,
                "LiveKit cannot be reached, so the room was not opened. Send the start request again.",
            ),
            LiveKitError::Timeout => Self::new(
                Code::LiveKitTimeout,
                "LiveKit did not respond in time, so the room may not be open. Send the start request again.",
            ),
            // `Refused`, `NotFound` and `TooLarge`.
            _ => Self::new(
                Code::LiveKitError,
                "LiveKit refused to open the room or sent an invalid response, which is in Greenroom's log. \
                 Greenroom's API key for LiveKit may be wrong.",
            ),
        }
    }

    fn store(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Timeout(_) => {
                tracing::warn!(error = %ErrorChain(error), "failed to get a response from the database");
                Self::new(Code::DatabaseUnavailable, "The database does not respond. Try again.")
            }
            StoreError::Refused(_) => {
                tracing::warn!(error = %ErrorChain(error), "failed to write to the database");
                Self::new(
                    Code::DatabaseUnavailable,
                    "The database does not accept writes at present. Try again.",
                )
            }
            // Not `Internal`, which reports a bug: in a rolling update, a process of the newer version
            // can read the row.
            StoreError::Undecodable(_) => {
                tracing::error!(error = %ErrorChain(error), "failed to decode row");
                Self::new(
                    Code::NotReady,
                    "A stored value of the requested session or template cannot be used: a newer \
                     version of Greenroom or a manual edit wrote it. Greenroom's log names the value under \
                     this request_id. Try again after the update, or have the operator correct the row.",
                )
            }
            // `Conflict`, `Migration` and `Query`.
            _ => Self::internal(&ErrorChain(error)),
        }
    }
}

/// Rounds up to whole seconds, so that a client never retries too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
