//! Writing a started session: one statement, and more only when that wrote nothing.

use chrono::{DateTime, SubsecRound, Utc};
use diesel_async::AsyncPgConnection;
use greenroom_domain::{OrganizationId, ParticipantAttributes, ParticipantIdentity};
use greenroom_store::{
    Constraint, KeyClaim, KeyKind, NewSession, SessionTemplate, StartedRow, StoreError,
    TemplateAvailability, TokenLifetime, organization,
};
use tokio::time::Instant;

use super::StartRequest;
use crate::idempotency::Replay;
use crate::{Error, Greenroom, clock};

/// New names of a room after its first. RoomNameGenerator of one process never collide, and those of several by
/// chance only, so a fourth collision is a fault and not bad luck.
const MAX_ROOM_NAME_RETRIES: usize = 3;

/// How often the statement is tried: with new names, with a lock, and each time that something which
/// stood in its way has gone.
const MAX_INSERT_ATTEMPTS: usize = 8;

/// The longest token: it travels in a URL, and what stands between cuts off long ones.
const MAX_TOKEN_BYTES: usize = 6 * 1024;

/// With so many bytes of a request in it no token is too long, whatever its template adds.
const SHORT_REQUEST_BYTES: usize = 1_500;

/// What one attempt came to.
struct Attempt {
    written: Option<StartedRow>,
    /// How many sessions may live at once, where the organization was locked and has a limit.
    limit: Option<i32>,
}

impl Greenroom {
    /// Writes the session; or finds the one of the same key or request, and says so.
    pub(super) async fn write_session(
        &self,
        mut new: NewSession,
        deadline: Instant,
    ) -> Result<(StartedRow, bool), Error> {
        let refetch = new.key.filter(|key| key.kind == KeyKind::Implicit);
        let (mut release, mut new_names) = (None, MAX_ROOM_NAME_RETRIES);
        for _ in 0..MAX_INSERT_ATTEMPTS {
            match self.insert(&new, release, deadline).await {
                Ok(Attempt { written: Some(started), .. }) => {
                    let replayed = started.setup.session.id != new.id;
                    return Ok((started, replayed));
                }
                // Maybe the user's session is over, or they are in its room: it loses the key.
                Ok(_) if release != refetch => release = refetch,
                Ok(Attempt { limit, .. }) => {
                    let replayed = self.explain_refusal(&new, limit, deadline).await?;
                    if let Some(started) = replayed {
                        return Ok((started, true));
                    }
                    // What stood in its way no longer does, or it was the missing lock.
                    new.sessions_locked =
                        self.shared.limited_organizations.contains(new.organization_id);
                }
                Err(Error::Store(StoreError::Conflict(Constraint::RoomName))) if new_names > 0 => {
                    new_names -= 1;
                    new.room_name = self.shared.room_names.room(new.created_at);
                }
                Err(error) => return Err(error),
            }
        }
        // The same key is claimed and given up again and again.
        Err(Error::Overloaded)
    }

    /// One attempt. An organization with a limit is locked first, so that its sessions are counted
    /// by one start after the other. A token that may be too long is tried before the commit.
    async fn insert(
        &self,
        new: &NewSession,
        release: Option<KeyClaim>,
        deadline: Instant,
    ) -> Result<Attempt, Error> {
        let (database, id) = (&self.shared.database, new.organization_id);
        let long = may_make_long_token(new);
        if !new.sessions_locked && !long && release.is_none() {
            let insert = async |db: &mut _| new.insert(db).await;
            let written = database.run_until(deadline, insert).await?;
            return Ok(Attempt { written, limit: None });
        }
        let turn = self.shared.organization_locks.wait(id, deadline);
        let _turn = if new.sessions_locked { Some(turn.await?) } else { None };
        let (mut limit, mut too_long) = (None, false);
        let insert = async |db: &mut AsyncPgConnection| {
            if new.sessions_locked {
                limit = organization::lock_sessions(db, id, new.max_active_sessions).await?;
            }
            if let Some(key) = release {
                key.release(db, id).await?;
            }
            let written = new.insert(db).await?;
            too_long = long && written.as_ref().is_some_and(|written| self.has_long_token(written));
            Ok(written.filter(|_| !too_long))
        };
        let written = database.transact_until(deadline, insert).await?;
        match limit {
            Some(_) => self.shared.limited_organizations.insert(id),
            None => self.shared.limited_organizations.remove(id),
        }
        if too_long { Err(Error::TokenTooLong) } else { Ok(Attempt { written, limit }) }
    }

    fn has_long_token(&self, started: &StartedRow) -> bool {
        self.issue_token(started.clone(), false).access_token.len() > MAX_TOKEN_BYTES
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
            participant_name: request.participant_name,
            participant_attributes: request.participant_attributes,
            agent_name: request.agent_name,
            user_id: request.user_id,
            metadata: request.metadata,
            room_name: self.shared.room_names.room(now),
            created_at: now,
            token: self.token_life(now),
            first_look_within: self.shared.reconcile_every,
            key,
            max_active_sessions: self.shared.max_active_sessions,
            sessions_locked: self.shared.limited_organizations.contains(organization),
        }
    }

    /// The life of a token that is made now.
    pub(crate) fn token_life(&self, now: DateTime<Utc>) -> TokenLifetime {
        // JWTs count whole seconds, and the reply's token_expiry is the token's to the second.
        TokenLifetime { issued_at: now.trunc_subsecs(0), default_ttl: self.shared.token_ttl }
    }

    /// Whether the template names the agent that the request counts on, if it does on any.
    async fn template_names_agent(
        &self,
        new: &NewSession,
        deadline: Instant,
    ) -> Result<bool, Error> {
        if new.agent_name.is_none() {
            return Ok(true);
        }
        let (organization, template) = (new.organization_id, new.session_template_id);
        let find = async |db: &mut _| SessionTemplate::find(db, organization, template).await;
        let template = self.shared.database.run_until(deadline, find).await?;
        Ok(template.is_some_and(|template| template.settings.agent_name == new.agent_name))
    }

    /// The session of the same key, or why there is none: first the key, then the template, then the
    /// limit. None when the reason has gone meanwhile, and the session may be written after all.
    async fn explain_refusal(
        &self,
        new: &NewSession,
        limit: Option<i32>,
        deadline: Instant,
    ) -> Result<Option<StartedRow>, Error> {
        if let Some(key) = &new.key {
            match self.replay(new, key, deadline).await? {
                Replay::Started(started) => return Ok(Some(*started)),
                Replay::Free => return Ok(None),
                Replay::Unused => {}
            }
        }
        let (organization, template) = (new.organization_id, new.session_template_id);
        let standing =
            async |db: &mut _| SessionTemplate::availability(db, organization, template).await;
        match self.shared.database.run_until(deadline, standing).await? {
            TemplateAvailability::Foreign => Err(Error::TemplateForbidden(template)),
            TemplateAvailability::Archived | TemplateAvailability::Absent => {
                Err(Error::TemplateNotFound(template))
            }
            TemplateAvailability::Startable
                if !self.template_names_agent(new, deadline).await? =>
            {
                Err(Error::OtherAgent)
            }
            TemplateAvailability::Startable => match limit {
                Some(limit) => Err(Error::TooManyActiveSessions { limit }),
                // It may have a limit, and was not locked: the next attempt does that, and knows.
                None => {
                    self.shared.limited_organizations.insert(organization);
                    Ok(None)
                }
            },
        }
    }
}

/// Whether, with the longest of all templates, the token could be too long. A user's id stands in
/// it up to four times, twice as a text within a text, where each quotation mark is four bytes.
fn may_make_long_token(new: &NewSession) -> bool {
    let user = new.user_id.as_ref().map_or(0, |user| user.as_str().len());
    let name = new.participant_name.as_ref().map_or(0, |name| name.as_str().len());
    let attributes =
        new.participant_attributes.as_ref().map_or(0, ParticipantAttributes::json_bytes);
    12 * user + 2 * name + attributes > SHORT_REQUEST_BYTES
}
