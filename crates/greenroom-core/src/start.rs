//! Starting a session: commit the session, open its room, issue the join token.

mod write;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::{
    AgentName, Caller, IdempotencyKey, JsonObject, OrganizationId, ParticipantAttributes,
    ParticipantName, RoomCreation, SessionTemplateId, UserId,
};
use greenroom_livekit::{JoinToken, LiveKitError, TokenMetadata};
use greenroom_store::{Session, SessionSetup, StartKey, StartedRow, Subject, record};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use self::write::Written;
use crate::room_setup::{dispatch_by_call, dispatch_by_token, room_settings};
use crate::{Error, Greenroom, OnLiveKitDown, idempotency};

/// Time from the beginning of a start within which the session is written, including retries with
/// new room names.
const INSERT_DEADLINE: Duration = Duration::from_millis(3_500);

/// Time from the beginning of a start within which LiveKit opens the room. The call itself may take
/// 2 s.
const ROOM_DEADLINE: Duration = Duration::from_secs(4);

/// Time from the beginning of a start within which the response of LiveKit is recorded. It is also
/// the maximum duration of a start.
const RECORD_DEADLINE: Duration = Duration::from_millis(4_500);

/// A request to start a session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartRequest {
    /// The template of the session. The session keeps the version that is current at its start.
    pub session_template_id: SessionTemplateId,
    /// The user who will join. `None` means the end user who calls, or a guest if a backend calls.
    pub user_id: Option<UserId>,
    /// Data that is stored with the session and given to the agent. Only backends may set it.
    pub metadata: Option<JsonObject>,
    /// The user's name in the room. `None` means the `user_id`.
    pub participant_name: Option<ParticipantName>,
    /// The user's attributes in the room. Other participants can read them.
    pub participant_attributes: Option<ParticipantAttributes>,
    /// The agent that the caller expects. The start fails if the template has another agent. `None`
    /// accepts any template.
    pub agent_name: Option<AgentName>,
    /// A repeated request with the same key returns the same session.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl StartRequest {
    /// Creates a request that only names its template.
    #[must_use]
    pub fn new(session_template_id: SessionTemplateId) -> Self {
        Self {
            session_template_id,
            user_id: None,
            metadata: None,
            participant_name: None,
            participant_attributes: None,
            agent_name: None,
            idempotency_key: None,
        }
    }
}

/// A committed session with a token to join its room.
#[derive(Clone)]
#[non_exhaustive]
pub struct StartedSession {
    /// The session as it is stored.
    pub session: Session,
    /// The join token. Greenroom does not store it.
    pub access_token: String,
    /// When this token expires. The `token_expiry` of the session is that of its latest token.
    pub token_expiry: DateTime<Utc>,
    /// Whether an earlier start wrote the session.
    pub replayed: bool,
    /// The URL at which clients join, with the scheme `ws` or `wss`.
    pub livekit_url: String,
}

impl fmt::Debug for StartedSession {
    /// Omits the token, because any reader of the output could join the room with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedSession").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Greenroom {
    /// Starts a session from a template.
    ///
    /// When this method returns, the session is committed. Its room exists in LiveKit, and the agent
    /// of its template is dispatched. With the room creation `on_join`, or after a start without
    /// LiveKit ([`OnLiveKitDown::TokenOnly`]), LiveKit does both when the user joins. A start takes
    /// at most 4.5 seconds.
    ///
    /// A repeated request with the same idempotency key returns the same session with a new token.
    /// A repeated request of an end user without a key also returns the same session, if the
    /// session is waiting for the user or the user has left its room.
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
        if let Some(rate) = &self.shared.start_rate {
            rate.take(caller.organization_id, Instant::now())?;
        }
        request.user_id = caller.acts_for(request.user_id)?;
        if request.metadata.is_some() && !caller.may_send_metadata() {
            return Err(Error::MetadataForbidden);
        }
        let key = idempotency::start_key(caller, &request);
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

    /// Opens the room and dispatches the agent, outside any transaction, and records the result.
    /// Returns false if the room is left to the user's join.
    async fn open_room(
        &self,
        setup: &SessionSetup,
        may_retry: bool,
        started_at: Instant,
    ) -> Result<bool, Error> {
        let settings = room_settings(setup, dispatch_by_call(setup));
        let open = async {
            let _permit = self.shared.livekit_limiter.acquire().await;
            self.shared.rooms.create(&setup.session.room_name, &settings).await
        };
        let record_deadline = started_at + RECORD_DEADLINE;
        let opened = timeout_at(started_at + ROOM_DEADLINE, open).await;
        let error = match opened.unwrap_or(Err(LiveKitError::Timeout)) {
            Ok(sid) => {
                self.record_room_opened(&setup.session, sid, record_deadline).await?;
                return Ok(true);
            }
            Err(error) => error,
        };
        tracing::warn!(session_id = %setup.session.id, error = &error as &dyn std::error::Error,
            "failed to open room");
        if self.defer_room_to_join(setup, &error, record_deadline).await {
            return Ok(false);
        }
        if !may_retry {
            self.record_failure(&setup.session, record_deadline).await;
        }
        Err(Error::LiveKit(error))
    }

    /// Leaves the opening of the room to the user's join, if the configuration allows it. Returns
    /// whether the start continues without LiveKit.
    ///
    /// A dispatch with private data cannot be deferred, because the user could read it in the
    /// token. After a refusal by LiveKit, the room is not deferred either, because LiveKit would
    /// also refuse the user.
    async fn defer_room_to_join(
        &self,
        setup: &SessionSetup,
        error: &LiveKitError,
        deadline: Instant,
    ) -> bool {
        let is_down = matches!(
            error,
            LiveKitError::Unavailable(_) | LiveKitError::NoNode(_) | LiveKitError::Timeout
        );
        let session = &setup.session;
        let has_private_data = session.metadata.is_some() || !setup.agent_metadata.is_empty();
        let is_enabled = self.shared.on_livekit_down == OnLiveKitDown::TokenOnly;
        if !is_enabled || !is_down || has_private_data {
            return false;
        }
        let (organization, id) = (session.organization_id, session.id);
        let defer = async |db: &mut _| Session::defer_room_to_join(db, organization, id).await;
        let deferred = self.shared.database.run_until(deadline, defer).await;
        deferred.unwrap_or_else(|error| {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "failed to defer room until join");
            false
        })
    }

    /// Records that the room was opened. If this write fails, the start still succeeds, because the
    /// keeper observes the room later.
    ///
    /// # Errors
    ///
    /// Returns [`Error::SessionOver`] if the session ended while LiveKit opened its room.
    async fn record_room_opened(
        &self,
        session: &Session,
        sid: String,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (organization, id) = (session.organization_id, session.id);
        let (subject, fact) = (subject_of(session), Fact::RoomOpened { sid });
        let now = self.shared.clock.now();
        let recorded = self.shared.database.run_until(deadline, async |db| {
            let is_open = record(db, subject, &fact, now).await?;
            if !is_open {
                Session::make_due(db, organization, id).await?;
            }
            Ok(is_open)
        });
        match recorded.await {
            Ok(true) => {}
            // The session ended while LiveKit opened its room. The keeper deletes the room.
            Ok(false) => {
                self.shared.due.notify_one();
                return Err(Error::SessionOver(id));
            }
            Err(error) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "failed to record opened room");
            }
        }
        Ok(())
    }

    async fn record_failure(&self, session: &Session, deadline: Instant) {
        let (subject, id, now) = (subject_of(session), session.id, self.shared.clock.now());
        let recorded = self
            .shared
            .database
            .run_until(deadline, async |db| record(db, subject, &Fact::RoomNotOpened, now).await);
        if let Err(error) = recorded.await {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "failed to record session failure");
        }
    }

    /// Signs the join token of a session.
    fn sign_token(&self, started: &StartedRow) -> String {
        let StartedRow { setup, token_expiry, .. } = started;
        let session = &setup.session;
        let settings = room_settings(setup, dispatch_by_token(setup));
        self.shared.signer.sign(&JoinToken {
            room: &session.room_name,
            identity: &session.participant_identity,
            name: match &setup.participant_name {
                Some(name) => Some(name.as_str()),
                None => session.user_id.as_ref().map(UserId::as_str),
            },
            attributes: setup.participant_attributes.as_ref(),
            issued_at: self.shared.clock.now(),
            expires_at: *token_expiry,
            metadata: TokenMetadata {
                session_id: session.id,
                session_template_id: session.session_template_id,
                user_id: session.user_id.as_ref(),
                modality_profile: session.modality_profile,
                enabled_panels: session.enabled_panels.as_ref(),
            },
            room_settings: &settings,
        })
    }

    /// Issues a further token for a session.
    pub(crate) fn reissue_token(&self, started: StartedRow) -> StartedSession {
        let access_token = self.sign_token(&started);
        self.started_session(started, access_token, false)
    }

    fn started_session(
        &self,
        started: StartedRow,
        access_token: String,
        replayed: bool,
    ) -> StartedSession {
        let StartedRow { setup, token_expiry, .. } = started;
        let livekit_url = self.shared.livekit_url.clone();
        StartedSession { session: setup.session, access_token, token_expiry, replayed, livekit_url }
    }
}

fn subject_of(session: &Session) -> Subject<'static> {
    let (organization, id) = (session.organization_id, session.id);
    Subject::Session { organization, id, end_user: None }
}
