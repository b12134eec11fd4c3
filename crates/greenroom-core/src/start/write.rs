//! Writing a started session: one statement, and more only when that wrote nothing.

use chrono::{DateTime, SubsecRound, Utc};
use diesel_async::AsyncPgConnection;
use greenroom_domain::{OrganizationId, ParticipantIdentity};
use greenroom_store::{
    Constraint, KeyClaim, NewSession, SessionTemplate, Standing, Started, StoreError, TokenLife,
    organization,
};
use tokio::time::Instant;

use super::StartRequest;
use crate::idempotency::Replay;
use crate::{Error, Greenroom, clock};

/// How often the statement is tried: with up to three new names of the room, and with what stood in
/// its way out of it. Names of one process never collide, and those of several by chance only, so
/// that a fourth collision is a fault and not bad luck.
const TRIED: usize = 6;

/// What one attempt came to.
struct Attempt {
    written: Option<Started>,
    /// How many sessions may live at once, where the organization was locked and has a limit.
    limit: Option<i32>,
}

impl Greenroom {
    /// Writes the session; or finds the one of the same key, and says so.
    pub(super) async fn write_session(
        &self,
        mut new: NewSession,
        deadline: Instant,
    ) -> Result<(Started, bool), Error> {
        for _ in 0..TRIED {
            match self.insert(&new, deadline).await {
                Ok(Attempt { written: Some(started), .. }) => return Ok((started, false)),
                Ok(Attempt { limit, .. }) => {
                    let replayed = self.why_nothing_was_written(&new, limit, deadline).await?;
                    if let Some(started) = replayed {
                        return Ok((started, true));
                    }
                    // What stood in its way no longer does, or it was the missing lock.
                    new.sessions_locked = self.shared.limited.knows(new.organization_id);
                }
                Err(Error::Store(StoreError::Conflict(Constraint::RoomName))) => {
                    new.room_name = self.shared.names.room(new.created_at);
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Conflict(Constraint::RoomName).into())
    }

    /// One attempt. An organization with a limit is locked first, so that its sessions are counted
    /// by one start after the other.
    async fn insert(&self, new: &NewSession, deadline: Instant) -> Result<Attempt, Error> {
        let (database, id) = (&self.shared.database, new.organization_id);
        if !new.sessions_locked {
            let insert = async |db: &mut _| new.insert(db).await;
            let written = database.run_until(deadline, insert).await?;
            return Ok(Attempt { written, limit: None });
        }
        let mut limit = None;
        let insert = async |db: &mut AsyncPgConnection| {
            limit = organization::lock_sessions(db, id, new.max_active_sessions).await?;
            new.insert(db).await
        };
        let written = database.transact_until(deadline, insert).await?;
        match limit {
            Some(_) => self.shared.limited.remember(id),
            None => self.shared.limited.forget(id),
        }
        Ok(Attempt { written, limit })
    }

    pub(super) fn new_session(
        &self,
        organization: OrganizationId,
        request: StartRequest,
        key: Option<KeyClaim>,
    ) -> NewSession {
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
            token: self.token_life(now),
            first_look_within: self.shared.reconcile_every,
            key,
            max_active_sessions: self.shared.max_active_sessions,
            sessions_locked: self.shared.limited.knows(organization),
        }
    }

    /// The life of a token that is made now.
    pub(crate) fn token_life(&self, now: DateTime<Utc>) -> TokenLife {
        // JWTs count whole seconds, and the reply's token_expiry is the token's to the second.
        TokenLife { issued_at: now.trunc_subsecs(0), default_ttl: self.shared.token_ttl }
    }

    /// The session of the same key, or why there is none: first the key, then the template, then the
    /// limit. None when the reason has gone meanwhile, and the session may be written after all.
    async fn why_nothing_was_written(
        &self,
        new: &NewSession,
        limit: Option<i32>,
        deadline: Instant,
    ) -> Result<Option<Started>, Error> {
        if let Some(key) = &new.key {
            match self.replay(new, key, deadline).await? {
                Replay::Started(started) => return Ok(Some(*started)),
                Replay::Free => return Ok(None),
                Replay::Unused => {}
            }
        }
        let (organization, template) = (new.organization_id, new.session_template_id);
        let standing =
            async |db: &mut _| SessionTemplate::standing(db, organization, template).await;
        match self.shared.database.run_until(deadline, standing).await? {
            Standing::Foreign => Err(Error::TemplateForbidden(template)),
            Standing::Archived | Standing::Absent => Err(Error::TemplateNotFound(template)),
            Standing::Startable => match limit {
                Some(limit) => Err(Error::TooManyActiveSessions { limit }),
                // It may have a limit, and was not locked: the next attempt does that, and knows.
                None => {
                    self.shared.limited.remember(organization);
                    Ok(None)
                }
            },
        }
    }
}
