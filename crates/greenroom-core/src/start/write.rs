//! Writes the session of a start with one insert, and finds the reason if the insert writes no row.

use std::sync::Arc;

use diesel_async::AsyncPgConnection;
use futures_util::FutureExt;
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::{
    OrganizationId, ParticipantAttributes, ParticipantIdentity, RoomCreation, SessionCount,
};
use greenroom_store::{
    Constraint, KeyClaim, NewSession, SessionLock, StartKey, StartedRow, StoreError, Subject,
    organization, record_own,
};
use tokio::time::Instant;

use super::request::StartRequest;
use crate::bulkhead::Work;
use crate::database::Cleanup;
use crate::{Error, Greenroom, clock};

/// Number of new room names after a collision. The names of one process never collide, and the
/// names of several processes collide rarely, so a fourth collision in a row is a bug.
const MAX_ROOM_NAME_RETRIES: usize = 3;

/// Maximum number of inserts per start. A start repeats its insert with a new room name, after
/// locking the organization, or after its key was released or taken by a concurrent start.
const MAX_INSERT_ATTEMPTS: usize = 8;

/// Maximum length of a token in bytes. A token travels in a URL, and proxies truncate or refuse long
/// URLs.
const MAX_TOKEN_BYTES: usize = 6 * 1024;

/// If a request adds at most this many bytes to the token, JSON escapes included, the token is at
/// most [`MAX_TOKEN_BYTES`] long with every template.
const SHORT_REQUEST_BYTES: usize = 1_500;

/// A session that was written, or found by its key or request.
pub(super) struct WrittenSession {
    pub(super) started: StartedRow,
    /// The join token, if it was already signed to measure it.
    pub(super) access_token: Option<String>,
    /// Whether an earlier start wrote the session.
    pub(super) is_replay: bool,
}

/// The result of one attempt to write the session.
struct InsertResult {
    /// The session, and its token if it was already signed. `None` if the insert returned no row.
    written: Option<(StartedRow, Option<String>)>,
    /// The limit of open sessions. `None` means that the organization has no limit or was not
    /// locked.
    limit: Option<SessionCount>,
}

impl Greenroom {
    /// Writes the session, or finds the session of the same key or request.
    pub(super) async fn write_session(
        &self,
        mut new: NewSession,
        deadline: Instant,
    ) -> Result<WrittenSession, Error> {
        let implicit_key = new.key.implicit().copied();
        let (mut key_to_release, mut retries) = (None, MAX_ROOM_NAME_RETRIES);
        for _ in 0..MAX_INSERT_ATTEMPTS {
            match self.insert(&new, key_to_release, deadline).await {
                Ok(InsertResult { written: Some((started, access_token)), .. }) => {
                    let is_replay = started.setup.session.id != new.id;
                    let is_on_join = started.setup.room_creation == RoomCreation::OnJoin;
                    if new.is_first_check_remembered && is_on_join && !is_replay {
                        self.schedule_first_check(&started.setup.session).await;
                    }
                    return Ok(WrittenSession { started, access_token, is_replay });
                }
                // The session that holds the key may be over, may have its user in its room, or may
                // be too old. The next attempt takes the key from such a session.
                Ok(_) if key_to_release != implicit_key => key_to_release = implicit_key,
                // If `explain_refusal` returns `None`, the conflict is gone or the next attempt
                // must lock the organization.
                Ok(InsertResult { limit, .. }) => {
                    if let Some(started) = self.explain_refusal(&new, limit, deadline).await? {
                        return Ok(WrittenSession { started, access_token: None, is_replay: true });
                    }
                }
                Err(Error::Store(StoreError::Conflict(Constraint::RoomName))) if retries > 0 => {
                    retries -= 1;
                    new.room_name = self.shared.room_names.next_name(self.shared.clock.now());
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
    ) -> Result<InsertResult, Error> {
        let (database, id) = (&self.shared.database, new.organization_id);
        let has_limit = self.shared.limits.limited_organizations.contains(id);
        let may_be_long = may_make_long_token(new);
        let cleanup = cleanup(new);
        if !has_limit && !may_be_long && key_to_release.is_none() {
            let insert = async |db: &mut _| new.insert(db, None).await;
            let written = database.run_with_cleanup(Work::Start, deadline, cleanup, insert).await?;
            return Ok(InsertResult {
                written: written.map(|started| (started, None)),
                limit: None,
            });
        }
        // Wait here for other starts of the organization, because waiting in PostgreSQL would
        // occupy a connection.
        let waiting = self.shared.limits.organization_locks.acquire(id, deadline);
        let _guard = if has_limit { Some(waiting.await?) } else { None };
        let (mut lock, mut is_too_long) = (None, false);
        let insert = async |db: &mut AsyncPgConnection| {
            if has_limit {
                lock = Some(organization::lock_sessions(db, id, new.max_active_sessions).await?);
            }
            if let Some(key) = key_to_release {
                key.release(db, id).await?;
            }
            let Some(started) = new.insert(db, lock.as_ref()).await? else { return Ok(None) };
            let access_token = may_be_long.then(|| self.sign_token(&started));
            is_too_long = access_token.as_deref().is_some_and(is_token_too_long);
            Ok((!is_too_long).then_some((started, access_token)))
        };
        let written = database.transact_with_cleanup(deadline, cleanup, insert).await?;
        // An attempt without a lock has not read the limit.
        if let Some(lock) = &lock {
            self.remember_limit(lock);
        }
        let limit = lock.as_ref().and_then(SessionLock::maximum);
        if is_too_long { Err(Error::TokenTooLong) } else { Ok(InsertResult { written, limit }) }
    }

    /// Fills in the values of a new session. Writes nothing.
    pub(super) fn new_session(
        &self,
        organization: OrganizationId,
        request: StartRequest,
        key: StartKey,
    ) -> NewSession {
        let now = self.shared.clock.now();
        let id = clock::session_id(now);
        NewSession {
            organization_id: organization,
            id,
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
            default_token_ttl: self.shared.settings.token_ttl,
            first_check_within: self.shared.settings.policy.reconcile_every,
            is_first_check_remembered: self.shared.replica_that_remembers(id).is_some(),
            key,
            max_active_sessions: self.shared.limits.max_active_sessions,
        }
    }
}

/// Ends the session of a start whose caller got an error because the outcome of the insert was
/// unknown. `None` if a repeated request with the same key may continue the session.
fn cleanup(new: &NewSession) -> Option<Cleanup> {
    if new.key != StartKey::None {
        return None;
    }
    let (organization, id) = (new.organization_id, new.id);
    Some(Arc::new(move |db| {
        let subject = Subject::Session { organization, id, end_user: None };
        async move { record_own(db, subject, &Fact::RoomNotOpened).await }.boxed()
    }))
}

/// Whether the join token is too long to be returned.
pub(super) fn is_token_too_long(token: &str) -> bool {
    token.len() > MAX_TOKEN_BYTES
}

/// Returns whether the token could be too long with some template.
///
/// A user id appears at most twice in a JSON string, where a quotation mark takes two bytes, and at
/// most twice in a JSON string within one, where it takes four: 2*2 + 2*4 = 12 bytes per byte. A
/// name appears once.
fn may_make_long_token(new: &NewSession) -> bool {
    let user = new.user_id.as_ref().map_or(0, |user| user.as_str().len());
    let name = new.participant_name.as_ref().map_or(0, |name| name.as_str().len());
    let attributes =
        new.participant_attributes.as_ref().map_or(0, ParticipantAttributes::json_bytes);
    12 * user + 2 * name + attributes > SHORT_REQUEST_BYTES
}
