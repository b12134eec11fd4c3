//! Idempotency keys: which session a key is of, and when it is forgotten.

use diesel::dsl::{IntervalDsl, now, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId, SessionStatus};

use crate::StoreError;
use crate::schema::sessions;

/// What makes a start that comes again the same session: a key, and the request it came with, both as
/// hashes. Neither is stored itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyClaim {
    pub kind: KeyKind,
    /// SHA-256 over the key, and the end user who sent it, if one did.
    pub hash: [u8; 32],
    /// SHA-256 over what the request asks for.
    pub fingerprint: [u8; 32],
}

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// The caller sent it: the session is the key's for a day, whatever becomes of it.
    Explicit,
    /// It is an end user's request itself: the session is the key's while the user may come back to
    /// it, and then a new one is.
    Implicit,
}

/// Whether the user of a session may come back to it: it waits for them, or they are out of its room.
///
/// Not when its time is up, even where the keeper has not come to it yet: whoever joined it then would
/// be put out again.
pub(crate) const RESUMABLE: &str = "(sessions.status = 'pending' and sessions.join_by > now()
    or sessions.status = 'active' and sessions.end_by > now()
      and sessions.user_left_at > sessions.user_joined_at)";

/// The session that has a key.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct KeyHolder {
    pub id: SessionId,
    pub status: SessionStatus,
    pub fingerprint: Option<Vec<u8>>,
}

impl KeyClaim {
    /// Who has the key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_holder(
        &self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<Option<KeyHolder>, StoreError> {
        let holder = sessions::table
            .filter(sessions::organization_id.eq(organization))
            .filter(sessions::idempotency_key.eq(self.hash.as_slice()))
            .select((sessions::id, sessions::status, sessions::idempotency_fingerprint))
            .first(connection)
            .await
            .optional()?;
        Ok(holder)
    }

    /// Forgets the key when its day is over, and tells whether it was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_if_expired(
        &self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<bool, StoreError> {
        let old = sessions::table
            .filter(sessions::organization_id.eq(organization))
            .filter(sessions::idempotency_key.eq(self.hash.as_slice()))
            .filter(sessions::created_at.le(now.into_sql::<Timestamptz>() - 24.hours()));
        let forgotten = diesel::update(old)
            .set((
                sessions::idempotency_key.eq(None::<Vec<u8>>),
                sessions::idempotency_fingerprint.eq(None::<Vec<u8>>),
                sessions::revision.eq(sessions::revision + 1),
            ))
            .execute(connection)
            .await?;
        Ok(forgotten > 0)
    }

    /// Takes a refetch's key from a session that its user cannot come back to, if one has it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(
        &self,
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<(), StoreError> {
        let held = sessions::table
            .filter(sessions::organization_id.eq(organization))
            .filter(sessions::idempotency_key.eq(self.hash.as_slice()))
            // Not just `not`: of a user who has never left it is neither true nor false.
            .filter(sql::<Bool>(RESUMABLE).sql(" is not true"));
        diesel::update(held)
            .set((
                sessions::idempotency_key.eq(None::<Vec<u8>>),
                sessions::idempotency_fingerprint.eq(None::<Vec<u8>>),
                sessions::revision.eq(sessions::revision + 1),
            ))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The two columns of a key, or of none.
    pub(crate) fn push<'b>(key: Option<&'b Self>, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        const NONE: &Option<Vec<u8>> = &None;
        match key {
            Some(key) => {
                out.push_bind_param::<Binary, _>(&key.hash)?;
                out.push_sql(", ");
                out.push_bind_param::<Binary, _>(&key.fingerprint)
            }
            None => {
                out.push_bind_param::<Nullable<Binary>, _>(NONE)?;
                out.push_sql(", ");
                out.push_bind_param::<Nullable<Binary>, _>(NONE)
            }
        }
    }
}

/// How far a walk over all keys has come.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct KeyCursor {
    organization_id: OrganizationId,
    key: Vec<u8>,
}

/// Forgets the keys whose day is over among the thousand behind `position`, or among the first.
/// None when the walk has come to its end.
///
/// In the order of their index, so that no batch looks at a key twice and none needs another index.
///
/// # Errors
/// When the database fails.
pub async fn purge_expired_keys(
    connection: &mut AsyncPgConnection,
    position: Option<&KeyCursor>,
) -> Result<Option<KeyCursor>, StoreError> {
    let first = KeyCursor { organization_id: OrganizationId(uuid::Uuid::nil()), key: Vec::new() };
    let forget = PurgeExpiredKeys(position.unwrap_or(&first));
    Ok(forget.get_result(connection).await.optional()?)
}

const BATCH: i64 = 1_000;

struct PurgeExpiredKeys<'a>(&'a KeyCursor);

impl QueryId for PurgeExpiredKeys<'_> {
    type QueryId = PurgeExpiredKeys<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for PurgeExpiredKeys<'_> {
    type SqlType = (Uuid, Binary);
}

impl QueryFragment<Pg> for PurgeExpiredKeys<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "with batch as (
               select organization_id, id, idempotency_key, created_at from sessions
               where idempotency_key is not null and (organization_id, idempotency_key) > (",
        );
        out.push_bind_param::<Uuid, _>(&self.0.organization_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Binary, _>(&self.0.key)?;
        out.push_sql(") order by organization_id, idempotency_key limit ");
        out.push_bind_param::<BigInt, _>(&BATCH)?;
        out.push_sql(
            "), forgotten as (
               update sessions set idempotency_key = null, idempotency_fingerprint = null, revision = revision + 1
               from batch where sessions.organization_id = batch.organization_id and sessions.id = batch.id
                 and batch.created_at <= now() - interval '24 hours')
             select organization_id, idempotency_key from batch
             order by organization_id desc, idempotency_key desc limit 1",
        );
        Ok(())
    }
}
