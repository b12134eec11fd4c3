//! Starting a session: commit the session, open its room, issue the join token.

mod batch;
mod key;
mod keyed;
mod opened;
mod queue;
mod refusal;
mod request;
mod room;
mod statement;
mod write;

use std::time::Duration;

use greenroom_domain::{Caller, OrganizationId, RoomCreation};
use greenroom_store::StartKey;
use tokio::time::Instant;

use self::key::start_key;
use self::keyed::Turn;
use self::room::deferred;
use self::write::WrittenSession;
use crate::task::complete;
use crate::{Error, Greenroom, StartedSession};

pub(crate) use self::keyed::KeyedStarts;
pub(crate) use self::opened::OpenedQueue;
pub(crate) use self::queue::{OrganizationQueues, StartQueue};
pub use self::request::StartRequest;

/// Time from the beginning of a start within which the session is written, including retries with
/// new room names.
const INSERT_DEADLINE: Duration = Duration::from_millis(3_500);

/// Maximum duration of a start. Until then, the response of LiveKit is recorded.
const MAX_DURATION: Duration = Duration::from_millis(4_500);

impl Greenroom {
    /// Starts a session from a template.
    ///
    /// When this method returns, the session is committed, its room exists in LiveKit, and the
    /// agent of its template is dispatched. If the room creation is `on_join`, or LiveKit was
    /// unavailable and [`OnLiveKitDown::TokenOnly`](crate::OnLiveKitDown::TokenOnly) is configured,
    /// LiveKit instead creates the room and dispatches the agent when the user joins. A start takes
    /// at most 4.5 seconds.
    ///
    /// A repeated request with the same idempotency key returns the same session with a new token.
    /// An end user who repeats a request without a key also gets the same session while it waits
    /// for the user or the user has left its room, for at most 24 hours.
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
    /// - [`Error::TemplateUnusable`] if the template has a setting that this version does not know.
    /// - [`Error::AgentMismatch`] if the request names an agent that is not the template's agent.
    /// - [`Error::TokenTooLong`] if the join token would be longer than 6 KiB.
    /// - [`Error::UserMismatch`] if an end user names another user.
    /// - [`Error::MetadataForbidden`] if an end user sends metadata.
    /// - [`Error::IdempotencyKeyReused`] if the key was used for a different request.
    /// - [`Error::SessionOver`] if the session that holds the key is over or its time is up, or if the
    ///   session ended before its room was open. An end user without a key gets another session
    ///   instead.
    /// - [`Error::TooManyActiveSessions`] if the organization has reached its limit of open
    ///   sessions (`pending` or `active`).
    /// - [`Error::RateLimited`] if the organization has reached its limit of starts per minute.
    /// - [`Error::LiveKit`] if LiveKit did not open the room. The session of a backend without an
    ///   idempotency key is then `failed` with the reason `livekit_error`. Any other session stays
    ///   `pending` until one minute after its creation, so that a repeated request can open its room.
    /// - [`Error::Store`] if the database fails, or if a value of the session that holds the key
    ///   cannot be used in a token.
    /// - [`Error::Overloaded`] if no database connection becomes free in time, or if two sessions
    ///   of an end user without a key in succession ended before their rooms were open.
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
        let (greenroom, caller) = (self.clone(), caller.clone());
        // A room that was opened must be recorded.
        complete(async move { greenroom.start_session(&caller, request, key).await }).await
    }

    /// Runs a start after the caller's rights have been checked.
    async fn start_session(
        &self,
        caller: &Caller,
        request: StartRequest,
        key: StartKey,
    ) -> Result<StartedSession, Error> {
        let started_at = Instant::now();
        let retry = key.implicit().map(|_| request.clone());
        match (self.try_start(caller, request, key, started_at).await, retry) {
            // The session ended while LiveKit opened its room. The next request of the user would
            // get another session, so this request gets it.
            (Err(Error::SessionOver(_)), Some(request)) => {
                // Boxed, so that this rare case does not double the size of each start's future.
                match Box::pin(self.try_start(caller, request, key, started_at)).await {
                    Err(Error::SessionOver(_)) => Err(Error::Overloaded),
                    result => result,
                }
            }
            (result, _) => result,
        }
    }

    /// Writes or finds the session, opens its room, and signs the token. Concurrent starts with the same
    /// key take over the result of the first.
    async fn try_start(
        &self,
        caller: &Caller,
        request: StartRequest,
        key: StartKey,
        started_at: Instant,
    ) -> Result<StartedSession, Error> {
        let organization = caller.organization_id;
        let first = match key.claim() {
            None => None,
            Some(&claim) => {
                let starts = &self.shared.limits.keyed_starts;
                match starts.wait_for_turn(organization, claim, started_at + MAX_DURATION).await? {
                    Turn::First(first) => Some(first),
                    Turn::Repeated(written) => return Ok(self.finish_start(caller, *written)),
                }
            }
        };
        let written = self.open_session(organization, request, key, started_at).await;
        if let Some(first) = first {
            first.publish(&written);
        }
        Ok(self.finish_start(caller, written?))
    }

    /// Signs the token, unless that was done to measure it.
    fn finish_start(&self, caller: &Caller, written: WrittenSession) -> StartedSession {
        let WrittenSession { started, access_token, is_replay } = written;
        let access_token = access_token.unwrap_or_else(|| self.sign_token(&started));
        self.started_session(caller, started, access_token, is_replay)
    }

    /// Writes or finds the session, and opens its room.
    async fn open_session(
        &self,
        organization: OrganizationId,
        request: StartRequest,
        key: StartKey,
        started_at: Instant,
    ) -> Result<WrittenSession, Error> {
        let new = self.new_session(organization, request, key);
        let mut written = self.write_session(new, started_at + INSERT_DEADLINE).await?;
        let started = &written.started;
        // A replay opens the room if no earlier start has recorded that it did.
        if started.setup.room_creation == RoomCreation::OnStart && !started.room_created {
            // A later request with the key, or one to another replica, may still open the room, so a
            // failure of LiveKit does not end the session.
            let keep_pending = key != StartKey::None;
            if !Box::pin(self.open_room(started, keep_pending, started_at)).await? {
                // LiveKit opens the room when the user joins. That token must contain the dispatch,
                // so discard the signed one.
                written.started = deferred(written.started);
                written.access_token = None;
            }
        }
        Ok(written)
    }
}
