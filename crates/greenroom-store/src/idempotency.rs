//! Idempotency keys: the session that holds a key, and the release of keys.

mod purge;
mod release;

use std::time::Duration;

use diesel::dsl::{exists, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Binary, Bool, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::idempotency::KEY_LIFETIME;
use greenroom_domain::{OrganizationId, SessionId};

use crate::StoreError;
use crate::schema::sessions;
use crate::sql::interval;

pub use self::purge::{KeyCursor, purge_expired_keys};

/// Maximum time that a statement waits for another transaction that holds a key, or the session of a
/// key. Usually that transaction is another replica's start, which commits within milliseconds.
pub const KEY_LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// SQL condition: always true. Limits the waits for locks to [`KEY_LOCK_TIMEOUT`] until the transaction
/// ends.
pub(crate) fn limits_lock_waits() -> String {
    let timeout = KEY_LOCK_TIMEOUT.as_millis();
    format!("(select set_config('lock_timeout', '{timeout}', true)) is not null")
}

/// The idempotency key of a start and the request that came with it, both as hashes. Two starts
/// with equal hashes return the same session. The key itself is never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyClaim {
    /// SHA-256 over the key and over the end user who sent it, if the caller is an end user. For an
    /// implicit key: over the request and the end user.
    pub hash: [u8; 32],
    /// Identifies the effective request.
    pub fingerprint: Fingerprint,
}

/// A digest of a request, and the version of the algorithm that computed it.
///
/// Only fingerprints of the same version are compared. During a rolling update, a retry may reach a
/// process with another version, which cannot know whether the request is the same and assumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 33]);

impl Fingerprint {
    /// Creates a fingerprint. `version` is that of the algorithm, from 1.
    #[must_use]
    pub const fn new(version: u8, digest: [u8; 32]) -> Self {
        let mut bytes = [version; 33];
        bytes.split_at_mut(1).1.copy_from_slice(&digest);
        Self(bytes)
    }

    /// The value of the column: the version and the digest. Version 1 is stored without its version:
    /// a process of Greenroom 0.1.0 would otherwise refuse a retry during a rolling update.
    pub(crate) fn stored(&self) -> &[u8] {
        match &self.0 {
            [1, digest @ ..] => digest,
            versioned => versioned,
        }
    }

    /// Pushes the condition that a session was started with the same request.
    pub(crate) fn push_is_same<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let [version, ..] = self.0;
        out.push_sql("(sessions.idempotency_fingerprint = ");
        out.push_bind_param::<Binary, _>(self.stored())?;
        out.push_sql(
            " or case octet_length(sessions.idempotency_fingerprint) when 32 then 1
               else get_byte(sessions.idempotency_fingerprint, 0) end is distinct from ",
        );
        // A literal, because it is the same for all starts of a process.
        out.push_sql(&version.to_string());
        out.push_sql(")");
        Ok(())
    }
}

/// The key of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartKey {
    /// The start is not idempotent.
    None,
    /// The caller sent the key. The session holds it for [`KEY_LIFETIME`], even after the session is
    /// over.
    Explicit(KeyClaim),
    /// The key was derived from an end user's request. The session holds it while the user may
    /// resume the session, at most for [`KEY_LIFETIME`]; then a new start takes it.
    Implicit(KeyClaim),
}

impl StartKey {
    /// The claim of either kind of key.
    #[must_use]
    pub fn claim(&self) -> Option<&KeyClaim> {
        match self {
            Self::None => None,
            Self::Explicit(claim) | Self::Implicit(claim) => Some(claim),
        }
    }

    /// The claim of a key that the caller sent.
    #[must_use]
    pub fn explicit(&self) -> Option<&KeyClaim> {
        match self {
            Self::Explicit(claim) => Some(claim),
            Self::None | Self::Implicit(_) => None,
        }
    }

    /// The claim of a key that was derived from an end user's request.
    #[must_use]
    pub fn implicit(&self) -> Option<&KeyClaim> {
        match self {
            Self::Implicit(claim) => Some(claim),
            Self::None | Self::Explicit(_) => None,
        }
    }
}

/// SQL condition: the session, a row of `table`, is not older than [`KEY_LIFETIME`].
pub(crate) fn holds_key(table: &str) -> String {
    format!("{table}.created_at > now() - {}", interval(KEY_LIFETIME))
}

/// SQL condition: the session may get another join token. False for a session without time left,
/// never null. The same rule as `lifecycle::TrackedSession::has_time_left`; a test compares the two.
pub const HAS_TIME_LEFT: &str = "(case sessions.status
   when 'pending' then sessions.join_by > now() or sessions.user_joined_at is not null
   when 'active' then sessions.end_by > now() end) is true";

/// SQL condition: the user may resume the session. The same rule as
/// `lifecycle::TrackedSession::is_resumable`; a test compares the two.
#[must_use]
pub fn resumable() -> String {
    format!(
        "({} and {HAS_TIME_LEFT} and (sessions.status = 'pending'
           or sessions.user_left_at > sessions.user_joined_at))",
        holds_key("sessions")
    )
}

/// The session that holds a key, compared with a request that has the key.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
#[non_exhaustive]
pub struct KeyHolder {
    /// The session, in the organization of the key.
    pub id: SessionId,
    /// Whether the session may get another join token. An explicit key outlives its session.
    pub has_time_left: bool,
    /// Whether the session was started with the same request. Also true if the versions of the
    /// fingerprints differ.
    pub is_same_request: bool,
}

struct SelectKeyHolder<'a> {
    organization: OrganizationId,
    key: &'a KeyClaim,
}

impl QueryId for SelectKeyHolder<'_> {
    type QueryId = ();
    // The text depends on the version of the fingerprint.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for SelectKeyHolder<'_> {
    type SqlType = (Uuid, Bool, Bool);
}

impl QueryFragment<Pg> for SelectKeyHolder<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select id, ");
        out.push_sql(HAS_TIME_LEFT);
        out.push_sql(", ");
        self.key.fingerprint.push_is_same(out.reborrow())?;
        out.push_sql(" from sessions where organization_id = ");
        out.push_bind_param::<Uuid, _>(&self.organization)?;
        out.push_sql(" and idempotency_key = ");
        out.push_bind_param::<Binary, _>(&self.key.hash)
    }
}

impl KeyClaim {
    /// Finds the session that holds the key. Returns `None` if no session does.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn find_holder(
        &self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<Option<KeyHolder>, StoreError> {
        let select = SelectKeyHolder { organization, key: self };
        Ok(select.get_result(connection).await.optional()?)
    }

    /// Returns whether the user of the session that holds this implicit key may resume it.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn is_resumable(
        &self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<bool, StoreError> {
        let holder = sessions::table
            .filter(sessions::organization_id.eq(organization))
            .filter(sessions::idempotency_key.eq(self.hash.as_slice()))
            .filter(sql::<Bool>(&resumable()));
        Ok(diesel::select(exists(holder)).get_result(connection).await?)
    }
}
