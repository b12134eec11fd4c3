//! Forgetting sessions that have been over for long enough.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Integer};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::StoreError;

const BATCH: i64 = 1_000;

/// Deletes up to a thousand sessions that have been over for so many days, with their timelines, and
/// tells whether there may be more. One whose room may still come back stays.
///
/// # Errors
/// When the database fails.
pub async fn delete_old_sessions(
    connection: &mut AsyncPgConnection,
    days: i32,
) -> Result<bool, StoreError> {
    let deleted = DeleteOldSessions { days }.execute(connection).await?;
    Ok(i64::try_from(deleted).is_ok_and(|deleted| deleted == BATCH))
}

#[derive(QueryId)]
struct DeleteOldSessions {
    days: i32,
}

impl QueryFragment<Pg> for DeleteOldSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // What was created later cannot have ended before: by that the blocks are found, for the
        // end has no index.
        out.push_sql(
            "with old as (
               select organization_id, id from sessions
               where created_at < now() - make_interval(days => ",
        );
        out.push_bind_param::<Integer, _>(&self.days)?;
        out.push_sql(") and ended_at < now() - make_interval(days => ");
        out.push_bind_param::<Integer, _>(&self.days)?;
        out.push_sql(") and next_check_at is null limit ");
        out.push_bind_param::<BigInt, _>(&BATCH)?;
        out.push_sql(
            " for update skip locked)
             delete from sessions using old
             where sessions.organization_id = old.organization_id and sessions.id = old.id",
        );
        Ok(())
    }
}
