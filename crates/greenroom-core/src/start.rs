//! Starting a session: commit the session, open its room, issue the join token.

mod key;
mod refusal;
mod request;
mod room;
mod write;

use std::time::Duration;

use greenroom_domain::{Caller, OrganizationId, RoomCreation};
use greenroom_store::StartKey;
use tokio::time::Instant;
use tracing::Instrument;

use self::key::start_key;
use self::write::Written;
use crate::{Error, Greenroom, StartedSession};

pub use self::request::StartRequest;

/// Time from the beginning of a start within which the session is written, including retries with
/// new room names.
const INSERT_DEADLINE: Duration = Duration::from_millis(3_500);

impl Greenroom {
    /// Starts a session from a template.
    ///
    /// When this method returns, the session is committed. Its room exists in LiveKit, and the agent
    /// of its template is dispatched. With the room creation `on_join`, or after a start without
    /// LiveKit ([`OnLiveKitDown::TokenOnly`](crate::OnLiveKitDown::TokenOnly)), LiveKit does both when the user joins. A start takes
    /// at most 4.5 seconds.
    ///
    /// A repeated request with the same idempotency key returns the same session with a new token.
    /// A repeated request of an end user without a key also returns the same session, if the
    /// session is waiting for the user or the user has left its room, for at most 24 hours.
    ///
    /// # Cancel safety
    ///
    /// The start runs in its own task. Dropping the future does not stop it: the session may still
    /// be created.
    ///
    /// # Errors
    ///
    /// - [`Error::TemplateNotFound`] if the template does not exist or is archived.
    /// - [`Error::TemplateForbidden`] if the template belongs to another organization.
    /// - [`Error::AgentMismatch`] if the request names an agent that is not the template's agent.
    /// - [`Error::TokenTooLong`] if the join token would be longer than 6 KiB.
    /// - [`Error::UserMismatch`] if an end user names another user.
    /// - [`Error::MetadataForbidden`] if an end user sends metadata.
    /// - [`Error::IdempotencyKeyReused`] if the key was used for a different request.
    /// - [`Error::SessionOver`] if the session of the key is over, or if the new session ended
    ///   before its room was open.
    /// - [`Error::TooManyActiveSessions`] if the organization has reached its limit of active
    ///   sessions.
    /// - [`Error::RateLimited`] if the organization has reached its limit of starts per minute.
    /// - [`Error::LiveKit`] if LiveKit did not open the room. The session is then `failed` with the
    ///   reason `livekit_error`. A session with an idempotency key stays `pending` until one minute
    ///   after its creation instead, so that a repeated request can open its room.
    /// - [`Error::Store`] if the database fails.
    /// - [`Error::Overloaded`] if no database connection becomes free in time.
    /// - [`Error::ShuttingDown`] if the runtime shuts down before the start has finished.
    pub async fn start(
        &self,
        caller: &Caller,
        mut request: StartRequest,
    ) -> Result<StartedSession, Error> {
        if let Some(rate) = &self.shared.limits.start_rate {
            rate.take(caller.organization_id, Instant::now())?;
        }
        request.user_id = caller.acts_for(request.user_id)?;
        if request.metadata.is_some() && !caller.may_send_metadata() {
            return Err(Error::MetadataForbidden);
        }
        let key = start_key(caller, &request);
        let (greenroom, organization) = (self.clone(), caller.organization_id);
        // The start runs in its own task, because the caller may be dropped at any point, as an
        // HTTP handler is when its client resets the connection. A room that was opened must be
        // recorded.
        let start = async move { greenroom.start_for(organization, request, key).await };
        match tokio::spawn(start.in_current_span()).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::ShuttingDown),
            },
        }
    }

    async fn start_for(
        &self,
        organization: OrganizationId,
        request: StartRequest,
        key: StartKey,
    ) -> Result<StartedSession, Error> {
        let started_at = Instant::now();
        let has_explicit_key = matches!(key, StartKey::Explicit(_));
        let new = self.new_session(organization, request, key);
        let Written { mut started, mut access_token, is_replay } =
            self.write_session(new, started_at + INSERT_DEADLINE).await?;
        // A replay opens the room if the first start has not recorded it.
        if started.setup.session.room_creation == RoomCreation::OnStart && !started.room_created {
            // If another request may still open the room, a failure of LiveKit does not end the
            // session.
            let may_retry = has_explicit_key || is_replay;
            if !self.open_room(&started.setup, may_retry, started_at).await? {
                // The user's join opens the room, by another token.
                started.setup.session.room_creation = RoomCreation::OnJoin;
                access_token = None;
            }
        }
        let access_token = access_token.unwrap_or_else(|| self.sign_token(&started));
        Ok(self.started_session(started, access_token, is_replay))
    }
}
