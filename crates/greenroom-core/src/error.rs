//! The failures of the use cases, independent of HTTP.

use std::time::Duration;

use greenroom_domain::template::Contradiction;
use greenroom_domain::{SessionCount, SessionId, SessionTemplateId, TemplateName, UserMismatch};
use greenroom_livekit::LiveKitError;
use greenroom_livekit::webhook::InvalidWebhook;
use greenroom_store::StoreError;

/// The failure of a use case.
///
/// An absent session is not an error: methods report it as `None`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The template does not exist, or it is archived.
    #[error("session template {0} does not exist or is archived")]
    TemplateNotFound(SessionTemplateId),
    /// The template belongs to another organization.
    #[error("session template {0} belongs to another organization")]
    TemplateForbidden(SessionTemplateId),
    /// The template has a setting with a value that this version does not know or that exceeds its
    /// limits, because a newer version or an edit by hand wrote it.
    #[error("session template {0} has a setting that this version does not know or allow")]
    TemplateUnusable(SessionTemplateId),
    /// Another template of the organization, which is not archived, has this name. Names are
    /// compared without regard to case.
    #[error("a session template named {:?} already exists", .0.as_str())]
    TemplateNameTaken(TemplateName),
    /// Fields of the template contradict each other, or have a value that this version does not
    /// know. Each contradiction names its field.
    #[error("fields of the session template contradict each other or are unknown")]
    TemplateContradicts(Vec<Contradiction>),
    /// The request names an agent that is not the agent of the template.
    #[error("the requested agent is not the session template's agent")]
    AgentMismatch,
    /// With this template and this request, the join token would be longer than 6 KiB.
    #[error("the join token would be longer than 6 KiB")]
    TokenTooLong,
    /// The caller is an end user, but only backends may do this.
    #[error("only a backend may do this, but the caller is an end user")]
    BackendOnly,
    /// An end user tried to act for another user.
    #[error("an end user may only act for themselves")]
    UserMismatch,
    /// An end user tried to set metadata. Only backends may, because agents trust metadata.
    #[error("an end user may not set metadata")]
    MetadataForbidden,
    /// The cursor is malformed or belongs to another list.
    #[error("the cursor is malformed or belongs to another list")]
    InvalidCursor,
    /// The session is over and cannot be joined.
    #[error("session {0} is over")]
    SessionOver(SessionId),
    /// The idempotency key was used for a different request.
    #[error("the idempotency key was used for a different request")]
    IdempotencyKeyReused,
    /// The organization has reached its limit of open sessions (`pending` or `active`).
    #[error("the organization has reached its limit of {limit} open sessions")]
    TooManyActiveSessions {
        /// Maximum number of open sessions.
        limit: SessionCount,
    },
    /// The organization has reached its limit of starts per minute.
    #[error("the organization has reached its limit of {per_minute} session starts per minute")]
    RateLimited {
        /// Maximum number of starts per minute.
        per_minute: u32,
        /// Time until the next start is allowed.
        retry_after: Duration,
        /// Time until `per_minute` starts are allowed at once again.
        reset_after: Duration,
    },
    /// The webhook's signature, body hash or body is invalid.
    #[error("the webhook could not be verified")]
    InvalidWebhook(#[source] InvalidWebhook),
    /// LiveKit failed. For a start, this means that the session was written but its room was not
    /// opened.
    #[error("the call to LiveKit failed")]
    LiveKit(#[source] LiveKitError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is shutting down and did not finish the request.
    #[error("the process is shutting down")]
    ShuttingDown,
    /// Too many concurrent requests: no database connection or lock of a limited organization became
    /// free in time, another start with the same idempotency key did not finish in time, or concurrent
    /// starts took the key of this start in each attempt.
    #[error(
        "too many concurrent requests: no database connection or organization lock became free in \
         time, or other starts kept taking the idempotency key"
    )]
    Overloaded,
}

/// Returns [`Error::BackendOnly`] unless a rule of [`Caller`](crate::Caller) permits the use case.
pub(crate) fn require_permission(is_permitted: bool) -> Result<(), Error> {
    if is_permitted { Ok(()) } else { Err(Error::BackendOnly) }
}

impl From<UserMismatch> for Error {
    fn from(_: UserMismatch) -> Self {
        Self::UserMismatch
    }
}
