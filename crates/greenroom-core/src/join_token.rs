//! Join tokens: their lifetime, signature and refresh, and the session that is returned with one.

use std::fmt;

use chrono::{DateTime, Utc};
use greenroom_domain::{Caller, SessionId, UserId};
use greenroom_livekit::{JoinToken, TokenMetadata};
use greenroom_store::{Session, StartedRow, TokenReissue};

use crate::query::visible_to;
use crate::room_setup::{dispatch_by_token, room_settings};
use crate::{Error, Greenroom};

/// A committed session with a token to join its room.
#[derive(Clone)]
#[non_exhaustive]
pub struct StartedSession {
    /// The session as it is stored. Without its metadata if the caller is an end user.
    pub session: Session,
    /// The join token. Greenroom does not store it.
    pub access_token: String,
    /// Expiry of this token. `session.token_expiry` is the latest expiry of all tokens of the
    /// session.
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
    /// Issues a new token for a session that the caller may see.
    ///
    /// The lifetime comes from the session's template version, or from the current configuration if
    /// the template sets none. Returns `None` if no such session exists or the caller may not see
    /// it.
    ///
    /// # Errors
    ///
    /// Returns [`Error::SessionOver`] if the session is over, or if `join_by` or the maximum duration
    /// has passed. Returns [`Error::Store`] if the database fails or a value of the session cannot be
    /// used in a token, and [`Error::Overloaded`] if no
    /// database connection becomes free in time.
    pub async fn refresh_token(
        &self,
        caller: &Caller,
        id: SessionId,
    ) -> Result<Option<StartedSession>, Error> {
        let default_ttl = self.shared.settings.token_ttl;
        let organization = caller.organization_id;
        let reissue = TokenReissue::Session { id, end_user: caller.sees_only() };
        let execute = async |db: &mut _| reissue.execute(db, organization, default_ttl).await;
        if let Some(started) = self.shared.database.run(execute).await? {
            let access_token = self.sign_token(&started);
            return Ok(Some(self.started_session(caller, started, access_token, false)));
        }
        // Distinguish a session that is over from an absent one only here, to save a query on
        // success.
        match self.session(caller, id).await? {
            Some(_) => Err(Error::SessionOver(id)),
            None => Ok(None),
        }
    }

    /// Signs the join token of a session.
    pub(crate) fn sign_token(&self, started: &StartedRow) -> String {
        let StartedRow { setup, token_expiry, token_issued_at, .. } = started;
        let session = &setup.session;
        let settings = room_settings(setup, dispatch_by_token(setup));
        self.shared.livekit.signer.sign(&JoinToken {
            room: &setup.room_name,
            identity: &setup.participant_identity,
            name: match &setup.participant_name {
                Some(name) => Some(name.as_str()),
                None => setup.user_id.as_ref().map(UserId::as_str),
            },
            attributes: setup.participant_attributes.as_ref(),
            issued_at: *token_issued_at,
            expires_at: *token_expiry,
            metadata: TokenMetadata {
                session_id: session.id,
                session_template_id: session.session_template_id,
                user_id: setup.user_id.as_ref(),
                modality_profile: setup.modality_profile,
                enabled_panels: session.enabled_panels.as_ref(),
            },
            room_settings: &settings,
        })
    }

    /// Adds the token and the URL to a committed session, as the caller may see it.
    pub(crate) fn started_session(
        &self,
        caller: &Caller,
        started: StartedRow,
        access_token: String,
        replayed: bool,
    ) -> StartedSession {
        let StartedRow { setup, token_expiry, .. } = started;
        let session = visible_to(caller, setup.session);
        let livekit_url = self.shared.livekit.client_url.clone();
        StartedSession { session, access_token, token_expiry, replayed, livekit_url }
    }
}
