//! Deletion of old sessions.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Integer};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::StoreError;

/// Maximum number of sessions that one statement deletes.
const BATCH_SIZE: i64 = 1_000;

/// Deletes up to 1,000 sessions that ended more than `days` days ago, with their timelines. Returns
/// whether more such sessions may exist. Keeps sessions that the keeper must still check, because
/// their rooms may be re-opened.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn delete_old_sessions(
    connection: &mut AsyncPgConnection,
    days: i32,
) -> Result<bool, StoreError> {
    let deleted = DeleteOldSessions { days }.execute(connection).await?;
    Ok(i64::try_from(deleted).is_ok_and(|deleted| deleted == BATCH_SIZE))
}

#[derive(QueryId)]
struct DeleteOldSessions {
    days: i32,
}

impl QueryFragment<Pg> for DeleteOldSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // `ended_at` has no index. The condition on `created_at` follows from the one on `ended_at`
        // and lets PostgreSQL use the BRIN index.
        out.push_sql(
            "with old as (
               select organization_id, id from sessions
               where created_at < now() - make_interval(days => ",
        );
        out.push_bind_param::<Integer, _>(&self.days)?;
        out.push_sql(") and ended_at < now() - make_interval(days => ");
        out.push_bind_param::<Integer, _>(&self.days)?;
        out.push_sql(") and next_check_at is null limit ");
        out.push_bind_param::<BigInt, _>(&BATCH_SIZE)?;
        out.push_sql(
            " for update skip locked)
             delete from sessions using old
             where sessions.organization_id = old.organization_id and sessions.id = old.id",
        );
        Ok(())
    }
}
