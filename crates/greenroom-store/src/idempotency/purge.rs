//! The release of expired idempotency keys, some keys at a time.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::OrganizationId;

use super::holds_key;
use crate::StoreError;

/// The position of [`purge_expired_keys`] among all keys.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct KeyCursor {
    organization_id: OrganizationId,
    key: Vec<u8>,
}

/// Releases the expired keys among the 1,000 keys after `cursor`, or among the first 1,000 if
/// `cursor` is `None`. Returns the cursor for the next call, or `None` if there were no keys after
/// `cursor`.
///
/// The keys are read in the order of their index, so that successive calls read each key once and
/// need no index on the creation time. A key whose session another transaction writes is left to a
/// later pass.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn purge_expired_keys(
    connection: &mut AsyncPgConnection,
    cursor: Option<&KeyCursor>,
) -> Result<Option<KeyCursor>, StoreError> {
    let first = KeyCursor { organization_id: OrganizationId(uuid::Uuid::nil()), key: Vec::new() };
    let purge = PurgeExpiredKeys { after: cursor.unwrap_or(&first) };
    Ok(purge.get_result(connection).await.optional()?)
}

/// Number of keys that one statement reads.
const BATCH_SIZE: i64 = 1_000;

struct PurgeExpiredKeys<'a> {
    after: &'a KeyCursor,
}

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
        out.push_bind_param::<Uuid, _>(&self.after.organization_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Binary, _>(&self.after.key)?;
        out.push_sql(") order by organization_id, idempotency_key limit ");
        out.push_bind_param::<BigInt, _>(&BATCH_SIZE)?;
        out.push_sql(
            "), expired as (
               select sessions.organization_id, sessions.id from sessions join batch using (organization_id, id)
               where not ",
        );
        out.push_sql(&holds_key("batch"));
        // Skips locked sessions, so that this statement waits for no other. The next pass releases
        // their keys.
        out.push_sql(
            " for update of sessions skip locked), released as (
               update sessions set idempotency_key = null, idempotency_fingerprint = null, revision = revision + 1
               from expired where sessions.organization_id = expired.organization_id and sessions.id = expired.id)
             select organization_id, idempotency_key from batch
             order by organization_id desc, idempotency_key desc limit 1",
        );
        Ok(())
    }
}
