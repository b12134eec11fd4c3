//! Starting a session: decide, commit, open the room, mint the token.

mod write;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use greenroom_domain::{
    AgentName, Caller, IdempotencyKey, JsonObject, OrganizationId, ParticipantAttributes,
    ParticipantName, RoomCreation, SessionTemplateId, UserId,
};
use greenroom_livekit::{JoinToken, LiveKitError, TokenMetadata};
use greenroom_store::{EndCause, KeyClaim, KeyKind, Session, SessionSetup, StartedRow};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::room_setup::{dispatch_by_call, dispatch_by_token, room_settings};
use crate::{Error, Greenroom, OnLiveKitDown, idempotency};

/// Until when, counted from the start, the session has to be written, new names included.
const INSERT_DEADLINE: Duration = Duration::from_millis(3_500);

/// Until when LiveKit has to have opened the room. It has its own two seconds, too.
const ROOM_DEADLINE: Duration = Duration::from_secs(4);

/// Until when what LiveKit answered has to be written down, and so the longest a start takes.
const RECORD_DEADLINE: Duration = Duration::from_millis(4_500);

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The template it is a session of, in the version that is current then.
    pub session_template_id: SessionTemplateId,
    /// Who will join; a guest, when a backend names nobody.
    pub user_id: Option<UserId>,
    /// Kept with the session and handed to the agent; not for end users.
    pub metadata: Option<JsonObject>,
    /// The name the user is shown under in the room, else the `user_id`.
    pub participant_name: Option<ParticipantName>,
    /// What the user shows of itself in the room.
    pub participant_attributes: Option<ParticipantAttributes>,
    /// The agent that the caller counts on: one that is not the template's is refused.
    pub agent_name: Option<AgentName>,
    /// The same key and the same request are the same session, however often they come.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl StartRequest {
    /// A start that says nothing but its template.
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

/// A session that is committed, and the pass to its room.
#[derive(Clone)]
pub struct StartedSession {
    /// As it is written.
    pub session: Session,
    /// The token to join with. It is never stored.
    pub access_token: String,
    /// Of this token; the session's own is that of the latest.
    pub token_expiry: DateTime<Utc>,
    /// Whether an earlier start had written it.
    pub replayed: bool,
    /// Where to join, in its `ws` or `wss` form.
    pub livekit_url: String,
}

impl fmt::Debug for StartedSession {
    /// Without the token, which opens the room to whoever reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedSession").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Greenroom {
    /// Starts a session of a template, or finds again the one that the same idempotency key started;
    /// without a key an end user finds the one that the same request started, while it waits for
    /// them or they are out of its room.
    ///
    /// When this returns, the session is committed and, unless the template says `on_join`, its
    /// room exists in LiveKit and the agent has been asked for.
    ///
    /// # Errors
    /// [`Error::TemplateNotFound`] and [`Error::TemplateForbidden`] when there is nothing to start;
    /// [`Error::OtherAgent`] and [`Error::TokenTooLong`] when the template does not go with the
    /// request; [`Error::UserMismatch`] and [`Error::MetadataForbidden`] when an end user asks for
    /// what is a backend's; [`Error::IdempotencyKeyReused`] when the key is another request's;
    /// [`Error::SessionOver`] when what the key started is over, or the session came to its end
    /// before its room was open; [`Error::TooManyActiveSessions`] and [`Error::RateLimited`] when the
    /// organization has used up its limits; [`Error::LiveKit`] when the room could not be opened,
    /// and then the session is `failed`/`livekit_error`, or, started with a key, waits a minute for
    /// the start to come again; [`Error::Store`] and [`Error::Overloaded`] when the database fails;
    /// [`Error::ShuttingDown`] when the runtime ends before the start does.
    pub async fn start(
        &self,
        caller: &Caller,
        mut request: StartRequest,
    ) -> Result<StartedSession, Error> {
        if let Some(rate) = &self.shared.start_rate {
            rate.take(caller.organization_id, Instant::now())?;
        }
        request.user_id = caller.acts_for(request.user_id)?;
        if caller.end_user.is_some() && request.metadata.is_some() {
            return Err(Error::MetadataForbidden);
        }
        let key = idempotency::claim(caller, &request);
        let (greenroom, organization) = (self.clone(), caller.organization_id);
        // In a task of its own: whoever waits may go away, as a server's handler does when its
        // client resets the connection, and a room that nobody wrote down is no session.
        let start = async move { greenroom.start_for(organization, request, key).await };
        match tokio::spawn(start.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::ShuttingDown),
            },
        }
    }

    async fn start_for(
        &self,
        organization: OrganizationId,
        request: StartRequest,
        key: Option<KeyClaim>,
    ) -> Result<StartedSession, Error> {
        let begun = Instant::now();
        let keyed = key.is_some_and(|key| key.kind == KeyKind::Explicit);
        let new = self.new_session(organization, request, key);
        let (mut started, replayed) = self.write_session(new, begun + INSERT_DEADLINE).await?;
        let session = &started.setup.session;
        // A replay whose room was not opened, for all that is known, opens it.
        if session.room_creation == RoomCreation::OnStart && !started.room_created {
            // Only a start that wrote it, and that will not come again, takes it back.
            self.open_room(&mut started, keyed || replayed, begun).await?;
        }
        Ok(self.issue_token(started, replayed))
    }

    /// Opens the room and asks for the agent, outside any transaction, and writes down how it went.
    async fn open_room(
        &self,
        started: &mut StartedRow,
        may_retry: bool,
        begun: Instant,
    ) -> Result<(), Error> {
        let setup = &started.setup;
        let settings = room_settings(setup, dispatch_by_call(setup));
        let open = async {
            let _call = self.shared.livekit_limiter.acquire().await;
            self.shared.rooms.create(&setup.session.room_name, &settings).await
        };
        let opened = timeout_at(begun + ROOM_DEADLINE, open).await;
        let error = match opened.unwrap_or(Err(LiveKitError::Timeout)) {
            Ok(sid) => {
                return self
                    .record_room_created(&setup.session, &sid, begun + RECORD_DEADLINE)
                    .await;
            }
            Err(error) => error,
        };
        tracing::warn!(session_id = %setup.session.id, error = &error as &dyn std::error::Error,
            "LiveKit did not open the room");
        if self.defer_room_to_join(setup, &error, begun + RECORD_DEADLINE).await {
            started.setup.session.room_creation = RoomCreation::OnJoin;
            return Ok(());
        }
        if !may_retry {
            self.record_failure(&setup.session, begun + RECORD_DEADLINE).await;
        }
        Err(Error::LiveKit(error))
    }

    /// Whether the start goes on without LiveKit: the user's joining opens the room then, once
    /// LiveKit is back. Not with anything for the agent in it that the user may not read, and not
    /// after a refusal, which would meet the user, too.
    async fn defer_room_to_join(
        &self,
        setup: &SessionSetup,
        error: &LiveKitError,
        deadline: Instant,
    ) -> bool {
        let down = matches!(
            error,
            LiveKitError::Unavailable(_) | LiveKitError::NoNode(_) | LiveKitError::Timeout
        );
        let session = &setup.session;
        let private = session.metadata.is_some() || !setup.agent_metadata.is_empty();
        if self.shared.on_livekit_down != OnLiveKitDown::TokenOnly || !down || private {
            return false;
        }
        let (organization, id) = (session.organization_id, session.id);
        let left = async |db: &mut _| Session::defer_room_to_join(db, organization, id).await;
        let left = self.shared.database.run_until(deadline, left).await;
        left.unwrap_or_else(|error| {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "the start could not go on without LiveKit");
            false
        })
    }

    /// Losing this write costs nothing but a look later on, so the start does not fail by it.
    async fn record_room_created(
        &self,
        session: &Session,
        sid: &str,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (organization, id) = (session.organization_id, session.id);
        let noted = self.shared.database.run_until(deadline, async |db| {
            let lives = Session::record_room_created(db, organization, id, sid).await?;
            if !lives {
                Session::make_due(db, organization, id).await?;
            }
            Ok(lives)
        });
        match noted.await {
            Ok(true) => {}
            // It came to its end while LiveKit opened its room, which must go again.
            Ok(false) => {
                self.shared.due.notify_one();
                return Err(Error::SessionOver(id));
            }
            Err(error) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "the opened room could not be written down");
            }
        }
        Ok(())
    }

    async fn record_failure(&self, session: &Session, deadline: Instant) {
        let (organization, id) = (session.organization_id, session.id);
        let noted = self.shared.database.run_until(deadline, async |db| {
            Session::end(db, organization, id, EndCause::RoomNotOpened).await
        });
        if let Err(error) = noted.await {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "the failed session could not be written down");
        }
    }

    /// The pass to a session's room.
    pub(crate) fn issue_token(&self, started: StartedRow, replayed: bool) -> StartedSession {
        let StartedRow { setup, token_expiry, .. } = started;
        let session = &setup.session;
        let settings = room_settings(&setup, dispatch_by_token(&setup));
        let access_token = self.shared.signer.sign(&JoinToken {
            room: &session.room_name,
            identity: &session.participant_identity,
            name: match &setup.participant_name {
                Some(name) => Some(name.as_str()),
                None => session.user_id.as_ref().map(UserId::as_str),
            },
            attributes: setup.participant_attributes.as_ref(),
            issued_at: self.shared.clock.now(),
            expires_at: token_expiry,
            metadata: TokenMetadata {
                session_id: session.id,
                session_template_id: session.session_template_id,
                user_id: session.user_id.as_ref(),
                modality_profile: session.modality_profile,
                enabled_panels: session.enabled_panels.as_ref(),
            },
            room_settings: &settings,
        });
        let livekit_url = self.shared.livekit_url.clone();
        StartedSession { session: setup.session, access_token, token_expiry, replayed, livekit_url }
    }
}
