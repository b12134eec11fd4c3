//! Writes the session of a start, and finds the reason if the insert writes no row.

use std::sync::Arc;

use greenroom_domain::{OrganizationId, ParticipantAttributes, ParticipantIdentity, RoomCreation};
use greenroom_store::{Constraint, NewSession, StartDefaults, StartKey, StartedRow, StoreError};
use tokio::time::Instant;

use super::batch::InsertResult;
use super::request::StartRequest;
use crate::bulkhead::Work;
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
#[derive(Clone)]
pub(super) struct WrittenSession {
    pub(super) started: StartedRow,
    /// The join token, if it was already signed to measure it.
    pub(super) access_token: Option<String>,
    /// Whether an earlier start wrote the session.
    pub(super) is_replay: bool,
}

impl Greenroom {
    /// Writes the session, or finds the session of the same key or request.
    pub(super) async fn write_session(
        &self,
        new: NewSession,
        deadline: Instant,
    ) -> Result<WrittenSession, Error> {
        let implicit_key = new.key.implicit().copied();
        let (mut new, mut retries) = (Arc::new(new), MAX_ROOM_NAME_RETRIES);
        let mut key_to_release = None;
        for _ in 0..MAX_INSERT_ATTEMPTS {
            let limit = match self.insert(&new, key_to_release, deadline).await {
                Ok(InsertResult { started: Some(started), access_token, .. }) => {
                    let is_replay = started.setup.session.id != new.id;
                    let is_on_join = started.setup.room_creation == RoomCreation::OnJoin;
                    if new.is_first_check_remembered && is_on_join && !is_replay {
                        self.schedule_first_check(&started.setup.session).await;
                    }
                    return Ok(WrittenSession { started, access_token, is_replay });
                }
                // The session that holds the key may be over, may have its user in its room, or may
                // be too old. The next attempt takes the key from such a session.
                Ok(_) if key_to_release != implicit_key => {
                    key_to_release = implicit_key;
                    continue;
                }
                Ok(InsertResult { limit, .. }) => limit,
                Err(Error::Store(StoreError::Conflict(Constraint::RoomName))) if retries > 0 => {
                    retries -= 1;
                    let room_name = self.shared.room_names.next_name(self.shared.clock.now());
                    Arc::make_mut(&mut new).room_name = room_name;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // `None` means that the conflict is gone or the next attempt must lock the organization.
            if let Some(started) = Box::pin(self.explain_refusal(&new, limit, deadline)).await? {
                return Ok(WrittenSession { started, access_token: None, is_replay: true });
            }
        }
        // Concurrent starts claim and release the same key again and again.
        Err(Error::Overloaded)
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
            is_first_check_remembered: self.shared.replica_that_remembers(id).is_some(),
            key,
            defaults: StartDefaults {
                token_ttl: self.shared.settings.token_ttl,
                first_check_within: self.shared.settings.policy.reconcile_every,
                max_active_sessions: self.shared.limits.max_active_sessions,
            },
        }
    }
}

/// The latest time at which a statement of a start may begin.
pub(super) fn latest_begin(deadline: Instant) -> Instant {
    deadline.checked_sub(Work::Start.min_work_time()).unwrap_or(deadline)
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
pub(super) fn may_make_long_token(new: &NewSession) -> bool {
    let user = new.user_id.as_ref().map_or(0, |user| user.as_str().len());
    let name = new.participant_name.as_ref().map_or(0, |name| name.as_str().len());
    let attributes =
        new.participant_attributes.as_ref().map_or(0, ParticipantAttributes::json_bytes);
    12 * user + 2 * name + attributes > SHORT_REQUEST_BYTES
}
