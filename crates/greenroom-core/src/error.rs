//! What can happen to a use case. It knows no status code; that is for whoever speaks HTTP.

use std::time::Duration;

use greenroom_domain::template::Contradiction;
use greenroom_domain::{SessionId, SessionTemplateId, TemplateName, UserMismatch};
use greenroom_livekit::LiveKitError;
use greenroom_livekit::webhook::InvalidWebhook;
use greenroom_store::StoreError;

/// Why a use case did not succeed. That a session is absent is no error but an `Option`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such template, or it is archived.
    #[error("there is no session template {0}")]
    TemplateNotFound(SessionTemplateId),
    /// The template is another organization's.
    #[error("session template {0} belongs to another organization")]
    TemplateForbidden(SessionTemplateId),
    /// A living template of the organization has this name already, in whatever case.
    #[error("a session template named {:?} exists already", .0.as_str())]
    TemplateNameTaken(TemplateName),
    /// Fields of the template contradict one another; each is named.
    #[error("the session template contradicts itself")]
    TemplateContradicts(Vec<Contradiction>),
    /// The request counts on an agent that is not the template's.
    #[error("the session template names another agent")]
    OtherAgent,
    /// With this template the request makes a token that is longer than one may be.
    #[error("the token would be too long")]
    TokenTooLong,
    /// An end user acts for nobody but themselves.
    #[error("an end user may not act for another")]
    UserMismatch,
    /// Metadata is for backends: an agent trusts it.
    #[error("an end user may not give metadata")]
    MetadataForbidden,
    /// The cursor is that of another list, or none at all.
    #[error("the cursor is not of this list")]
    InvalidCursor,
    /// The session is over: there is nothing left to join.
    #[error("session {0} is over")]
    SessionOver(SessionId),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// As many of the organization's sessions live as may.
    #[error("the organization has {limit} active sessions already")]
    TooManyActiveSessions {
        /// How many may live at once.
        limit: i32,
    },
    /// The organization has asked for more starts than it may in a minute.
    #[error("the organization starts more than {per_minute} sessions a minute")]
    RateLimited {
        /// How many it may.
        per_minute: u32,
        /// Until one more may come.
        next_in: Duration,
        /// Until as many as ever may come.
        all_in: Duration,
    },
    /// What claims to be a webhook was not sent by LiveKit.
    #[error("the webhook is not LiveKit's")]
    InvalidWebhook(#[source] InvalidWebhook),
    /// The session is written, and failed, because LiveKit did not open its room.
    #[error("the room could not be opened")]
    LiveKit(#[source] LiveKitError),
    /// The database failed; nothing was promised.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is ending, and what was asked of it was not done.
    #[error("the process is ending")]
    ShuttingDown,
    /// All connections to the database stayed busy.
    #[error("no database connection was free in time")]
    Overloaded,
}

impl From<UserMismatch> for Error {
    fn from(_: UserMismatch) -> Self {
        Self::UserMismatch
    }
}
