//! Starting a session: decide, commit, open the room, mint the token.

use std::fmt;
use std::time::Duration;

use chrono::SubsecRound;
use greenroom_domain::{
    Caller, EndReason, JsonObject, OrganizationId, ParticipantIdentity, RoomCreation,
    SessionTemplateId, UserId,
};
use greenroom_livekit::dispatch::PrivateMetadata;
use greenroom_livekit::{
    Dispatch, JobMetadata, JoinToken, LiveKitError, RoomSettings, TokenMetadata,
};
use greenroom_store::{
    Constraint, NewSession, Session, SessionTemplate, Standing, Started, StoreError,
};

use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::{Error, Greenroom, clock};

/// The first name of a room and up to three new ones. Names of one process never collide, and
/// those of several by chance only, so a fourth collision is a fault and not bad luck.
const NAMES_TRIED: usize = 4;

/// Until when, counted from the start, the session has to be written, new names included.
const WRITTEN: Duration = Duration::from_millis(3_500);

/// Until when LiveKit has to have opened the room. It has its own two seconds, too.
const OPENED: Duration = Duration::from_secs(4);

/// Until when what LiveKit answered has to be written down, and so the longest a start takes.
const NOTED: Duration = Duration::from_millis(4_500);

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct StartRequest {
    pub session_template_id: SessionTemplateId,
    /// Who will join; a guest, when a backend names nobody.
    pub user_id: Option<UserId>,
    /// Kept with the session and handed to the agent; not for end users.
    pub metadata: Option<JsonObject>,
}

impl StartRequest {
    #[must_use]
    pub fn new(session_template_id: SessionTemplateId) -> Self {
        Self { session_template_id, user_id: None, metadata: None }
    }
}

/// A session that is committed, and the pass to its room.
#[derive(Clone)]
pub struct StartedSession {
    pub session: Session,
    /// The token to join with. It is never stored.
    pub access_token: String,
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
    /// Starts a session of a template.
    ///
    /// When this returns, the session is committed and, unless the template says `on_join`, its
    /// room exists in LiveKit and the agent has been asked for.
    ///
    /// # Errors
    /// [`Error::TemplateNotFound`] and [`Error::TemplateForbidden`] when there is nothing to
    /// start; [`Error::AnotherUser`] and [`Error::MetadataForbidden`] when an end user asks for what
    /// is a backend's; [`Error::LiveKit`] when the room could not be opened, and then the session is
    /// `failed`/`livekit_error` (unless the database did not take that any more);
    /// [`Error::Store`] and [`Error::Overloaded`] when the database fails;
    /// [`Error::ShuttingDown`] when the runtime ends before the start does.
    pub async fn start(
        &self,
        caller: &Caller,
        mut request: StartRequest,
    ) -> Result<StartedSession, Error> {
        request.user_id = caller.acts_for(request.user_id)?;
        if caller.end_user.is_some() && request.metadata.is_some() {
            return Err(Error::MetadataForbidden);
        }
        let (greenroom, organization) = (self.clone(), caller.organization_id);
        // In a task of its own: whoever waits may go away, as a server's handler does when its
        // client resets the connection, and a room that nobody wrote down is no session.
        let start = async move { greenroom.start_for(organization, request).await };
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
    ) -> Result<StartedSession, Error> {
        let begun = Instant::now();
        let started = self.write_session(organization, request, begun + WRITTEN).await?;
        if started.session.room_creation == RoomCreation::OnStart {
            self.open_room(&started, begun).await?;
        }
        Ok(self.hand_out(started))
    }

    async fn write_session(
        &self,
        organization: OrganizationId,
        request: StartRequest,
        deadline: Instant,
    ) -> Result<Started, Error> {
        let template = request.session_template_id;
        let mut new = self.new_session(organization, request);
        for _ in 0..NAMES_TRIED {
            let insert = async |db: &mut _| new.insert(db).await;
            match self.shared.database.run_until(deadline, insert).await {
                Ok(Some(started)) => return Ok(started),
                Ok(None) => self.check_template(organization, template, deadline).await?,
                Err(Error::Store(StoreError::Conflict(Constraint::RoomName))) => {}
                Err(error) => return Err(error),
            }
            new.room_name = self.shared.names.room(new.created_at);
        }
        Err(StoreError::Conflict(Constraint::RoomName).into())
    }

    fn new_session(&self, organization: OrganizationId, request: StartRequest) -> NewSession {
        let now = self.shared.clock.now();
        NewSession {
            organization_id: organization,
            id: clock::session_id(now),
            session_template_id: request.session_template_id,
            participant_identity: match &request.user_id {
                Some(user) => ParticipantIdentity::from(user),
                None => clock::guest(),
            },
            user_id: request.user_id,
            metadata: request.metadata,
            room_name: self.shared.names.room(now),
            created_at: now,
            // JWTs count whole seconds, and the reply's token_expiry is the token's to the second.
            token_issued_at: now.trunc_subsecs(0),
            default_token_ttl: self.shared.token_ttl,
        }
    }

    /// Says why the insert found no template. One that came into being in between is no reason:
    /// then the insert is tried again.
    async fn check_template(
        &self,
        organization: OrganizationId,
        id: SessionTemplateId,
        deadline: Instant,
    ) -> Result<(), Error> {
        let standing = async |db: &mut _| SessionTemplate::standing(db, organization, id).await;
        match self.shared.database.run_until(deadline, standing).await? {
            Standing::Startable => Ok(()),
            Standing::Foreign => Err(Error::TemplateForbidden(id)),
            Standing::Archived | Standing::Absent => Err(Error::TemplateNotFound(id)),
        }
    }

    /// Opens the room and asks for the agent, outside any transaction, and writes down how it went.
    async fn open_room(&self, started: &Started, begun: Instant) -> Result<(), Error> {
        let session = &started.session;
        let settings = room_settings(started, dispatch_by_call(started));
        let open = self.shared.rooms.create(&session.room_name, &settings);
        let opened = timeout_at(begun + OPENED, open).await;
        match opened.unwrap_or(Err(LiveKitError::Timeout)) {
            Ok(()) => self.note_room(session, begun + NOTED).await,
            Err(error) => {
                self.note_failure(session, &error, begun + NOTED).await;
                return Err(Error::LiveKit(error));
            }
        }
        Ok(())
    }

    /// Losing this write costs nothing but a look later on, so the start does not fail by it.
    async fn note_room(&self, session: &Session, deadline: Instant) {
        let (organization, id) = (session.organization_id, session.id);
        let noted = self.shared.database.run_until(deadline, async |db| {
            if !Session::room_created(db, organization, id).await? {
                // Somebody ended it while LiveKit opened its room, which must go again.
                Session::make_due(db, organization, id).await?;
            }
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "the opened room could not be written down");
        }
    }

    async fn note_failure(&self, session: &Session, cause: &LiveKitError, deadline: Instant) {
        let (organization, id) = (session.organization_id, session.id);
        tracing::warn!(session_id = %id, error = cause as &dyn std::error::Error,
            "LiveKit did not open the room");
        let noted = self.shared.database.run_until(deadline, async |db| {
            Session::fail(db, organization, id, EndReason::LiveKitError).await
        });
        if let Err(error) = noted.await {
            tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                "the failed session could not be written down");
        }
    }

    fn hand_out(&self, started: Started) -> StartedSession {
        let session = &started.session;
        let settings = room_settings(&started, dispatch_by_token(&started));
        let access_token = self.shared.signer.sign(&JoinToken {
            room: &session.room_name,
            identity: &session.participant_identity,
            name: session.user_id.as_ref().map(UserId::as_str),
            issued_at: self.shared.clock.now(),
            expires_at: session.token_expiry,
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
        StartedSession { session: started.session, access_token, livekit_url }
    }
}

/// The join window has just begun, by PostgreSQL's clock; the process's is not asked.
fn room_settings(started: &Started, dispatch: Dispatch) -> RoomSettings {
    let left = started.join_window.get().unsigned_abs();
    RoomSettings::new(left, started.reconnect_window, dispatch)
}

/// The agent as the call that opens the room asks for it: nobody but LiveKit reads this.
fn dispatch_by_call(started: &Started) -> Dispatch {
    let session = &started.session;
    let private = PrivateMetadata {
        modality_profile: session.modality_profile,
        enabled_panels: session.enabled_panels.as_ref(),
        metadata: session.metadata.as_ref(),
        agent_metadata: &started.agent_metadata,
    };
    dispatch(started, Some(private))
}

/// The agent as a token asks for it. A room has one owner of its dispatch: where the call asks,
/// the token names nobody, so that a room it re-creates admits no stranger.
fn dispatch_by_token(started: &Started) -> Dispatch {
    match started.session.room_creation {
        RoomCreation::OnStart => Dispatch::nobody(),
        RoomCreation::OnJoin => dispatch(started, None),
    }
}

fn dispatch(started: &Started, private: Option<PrivateMetadata<'_>>) -> Dispatch {
    let Some(agent) = &started.agent_name else { return Dispatch::nobody() };
    let session = &started.session;
    let metadata = JobMetadata {
        session_id: session.id,
        organization_id: session.organization_id,
        session_template_id: session.session_template_id,
        user_id: session.user_id.as_ref(),
        private,
    };
    Dispatch::new(agent, &metadata)
}
