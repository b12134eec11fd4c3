//! Writes a started session with one statement, and with further statements if it wrote nothing.

use diesel_async::AsyncPgConnection;
use greenroom_domain::{OrganizationId, ParticipantAttributes, ParticipantIdentity, SessionCount};
use greenroom_store::{
    Constraint, KeyClaim, NewSession, SessionLock, StartKey, StartedRow, StoreError, organization,
};
use tokio::time::Instant;

use super::request::StartRequest;
use crate::{Error, Greenroom, clock};

/// Number of new room names after a collision. The names of one process never collide, and the
/// names of several processes collide rarely, so a fourth collision in a row is a bug.
const MAX_ROOM_NAME_RETRIES: usize = 3;

/// Maximum number of attempts: with new room names, with a lock, and after a conflict has
/// disappeared.
const MAX_INSERT_ATTEMPTS: usize = 8;

/// Maximum length of a token. A token travels in a URL, and proxies truncate or refuse long URLs.
const MAX_TOKEN_BYTES: usize = 6 * 1024;

/// A request that adds at most this many bytes to the token, escapes included, makes a short enough
/// token with every template.
const SHORT_REQUEST_BYTES: usize = 1_500;

/// A session that was written, or found by its key or request.
pub(super) struct Written {
    pub(super) started: StartedRow,
    /// The join token, if it was already signed to measure it.
    pub(super) access_token: Option<String>,
    /// Whether an earlier start wrote the session.
    pub(super) is_replay: bool,
}

/// The result of one attempt to write the session.
struct Attempt {
    /// The session and its token, if that was signed. `None` means that the statement wrote no
    /// session.
    written: Option<(StartedRow, Option<String>)>,
    /// The limit of active sessions. `None` means that the organization has no limit or was not
    /// locked.
    limit: Option<SessionCount>,
}

impl Greenroom {
    /// Writes the session, or finds the session of the same key or request.
    pub(super) async fn write_session(
        &self,
        mut new: NewSession,
        deadline: Instant,
    ) -> Result<Written, Error> {
        let implicit_key = match new.key {
            StartKey::Implicit(key) => Some(key),
            StartKey::None | StartKey::Explicit(_) => None,
        };
        let (mut key_to_release, mut retries) = (None, MAX_ROOM_NAME_RETRIES);
        for _ in 0..MAX_INSERT_ATTEMPTS {
            match self.insert(&new, key_to_release, deadline).await {
                Ok(Attempt { written: Some((started, access_token)), .. }) => {
                    let is_replay = started.setup.session.id != new.id;
                    return Ok(Written { started, access_token, is_replay });
                }
                // The session that holds the key may be over, may have its user in its room, or may
                // be too old. The next attempt takes the key from such a session.
                Ok(_) if key_to_release != implicit_key => key_to_release = implicit_key,
                // `None` means that the conflict has disappeared, or that the organization was not
                // locked: retry.
                Ok(Attempt { limit, .. }) => {
                    if let Some(started) = self.explain_refusal(&new, limit, deadline).await? {
                        return Ok(Written { started, access_token: None, is_replay: true });
                    }
                }
                Err(Error::Store(StoreError::Conflict(Constraint::RoomName))) if retries > 0 => {
                    retries -= 1;
                    new.room_name = self.shared.room_names.next_name(new.created_at);
                }
                Err(error) => return Err(error),
            }
        }
        // Concurrent starts claim and release the same key again and again.
        Err(Error::Overloaded)
    }

    /// Makes one attempt. An organization with a limit is locked first, so that only one start at a
    /// time counts its sessions. A token that may be too long is signed before the commit.
    async fn insert(
        &self,
        new: &NewSession,
        key_to_release: Option<KeyClaim>,
        deadline: Instant,
    ) -> Result<Attempt, Error> {
        let (database, id) = (&self.shared.database, new.organization_id);
        let has_limit = self.shared.limits.limited_organizations.contains(id);
        let may_be_long = may_make_long_token(new);
        if !has_limit && !may_be_long && key_to_release.is_none() {
            let insert = async |db: &mut _| new.insert(db, None).await;
            let written = database.run_until(deadline, insert).await?;
            return Ok(Attempt { written: written.map(|started| (started, None)), limit: None });
        }
        // Starts of one organization wait here, not on a connection.
        let waiting = self.shared.limits.organization_locks.acquire(id, deadline);
        let _guard = if has_limit { Some(waiting.await?) } else { None };
        let (mut limit, mut is_too_long) = (None, false);
        let insert = async |db: &mut AsyncPgConnection| {
            let lock = if has_limit {
                Some(organization::lock_sessions(db, id, new.max_active_sessions).await?)
            } else {
                None
            };
            limit = lock.as_ref().and_then(SessionLock::maximum);
            if let Some(key) = key_to_release {
                key.release(db, id).await?;
            }
            let Some(started) = new.insert(db, lock.as_ref()).await? else { return Ok(None) };
            let access_token = may_be_long.then(|| self.sign_token(&started));
            is_too_long = access_token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN_BYTES);
            Ok((!is_too_long).then_some((started, access_token)))
        };
        let written = database.transact_until(deadline, insert).await?;
        match limit {
            Some(_) => self.shared.limits.limited_organizations.insert(id),
            None => self.shared.limits.limited_organizations.remove(id),
        }
        if is_too_long { Err(Error::TokenTooLong) } else { Ok(Attempt { written, limit }) }
    }

    pub(super) fn new_session(
        &self,
        organization: OrganizationId,
        request: StartRequest,
        key: StartKey,
    ) -> NewSession {
        let now = self.shared.clock.now();
        NewSession {
            organization_id: organization,
            id: clock::session_id(now),
            session_template_id: request.session_template_id,
            participant_identity: match &request.user_id {
                Some(user) => ParticipantIdentity::from(user),
                None => clock::guest_identity(),
            },
            participant_name: request.participant_name,
            participant_attributes: request.participant_attributes,
            agent_name: request.agent_name,
            user_id: request.user_id,
            metadata: request.metadata,
            room_name: self.shared.room_names.next_name(now),
            created_at: now,
            token: self.token_lifetime(now),
            first_check_within: self.shared.defaults.policy.reconcile_every,
            key,
            max_active_sessions: self.shared.limits.max_active_sessions,
        }
    }
}

/// Whether the token could be too long with some template.
///
/// The token contains the user id up to four times, twice in a JSON string within a JSON string,
/// where a quotation mark takes four bytes.
fn may_make_long_token(new: &NewSession) -> bool {
    let user = new.user_id.as_ref().map_or(0, |user| user.as_str().len());
    let name = new.participant_name.as_ref().map_or(0, |name| name.as_str().len());
    let attributes =
        new.participant_attributes.as_ref().map_or(0, ParticipantAttributes::json_bytes);
    12 * user + 2 * name + attributes > SHORT_REQUEST_BYTES
}
