//! SQL text that several statements share.

use chrono::TimeDelta;
use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Text};
use greenroom_domain::UserId;

/// Whether a session is not over. The statuses must be literals: PostgreSQL does not use the partial
/// indexes of open sessions if the statuses are parameters.
pub(crate) const OPEN: &str = "status in ('pending', 'active')";

/// A constant interval of whole seconds. As a literal, it keeps the statement's plan generic.
pub(crate) fn interval(length: TimeDelta) -> String {
    format!("interval '{} seconds'", length.num_seconds())
}

/// Appends an [`interval`].
pub(crate) fn push_interval(length: TimeDelta, out: &mut AstPass<'_, '_, Pg>) {
    out.push_sql(&interval(length));
}

/// A query that is not cached as a prepared statement, so PostgreSQL plans each execution.
///
/// PostgreSQL keeps the generic plan of a prepared statement until the table is analyzed. A search of
/// the keeper that was planned while the table was small would scan the whole table until then: with
/// 12,000 new sessions, it took 70 ms instead of 1 ms to read a batch.
pub(crate) struct PlannedEachTime<Q>(pub(crate) Q);

impl<Q: Query> Query for PlannedEachTime<Q> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for PlannedEachTime<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        self.0.walk_ast(out)
    }
}

impl<Q> QueryId for PlannedEachTime<Q> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

/// The first `limit` rows of a list that has the order of an index, with a plan that PostgreSQL keeps.
/// Planning a page takes longer than reading it.
///
/// For a limit that is a parameter, the kept plan is assumed to return a tenth of the rows: of the whole
/// table, and PostgreSQL would plan each execution. With the literal limit `max`, it is a tenth of `max`.
pub(crate) struct PlannedOnce<Q> {
    pub(crate) list: Q,
    /// The largest `limit`.
    pub(crate) max: u16,
    pub(crate) limit: i64,
}

impl<Q: Query> Query for PlannedOnce<Q> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for PlannedOnce<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select * from (");
        self.list.walk_ast(out.reborrow())?;
        out.push_sql(&format!(" limit {}) as page limit ", self.max));
        out.push_bind_param::<BigInt, _>(&self.limit)
    }
}

impl<Q> QueryId for PlannedOnce<Q> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

/// Appends the condition that a caller may see the session. `sees_only` is that of
/// [`Caller::sees_only`](greenroom_domain::Caller::sees_only).
pub(crate) fn push_may_see<'b>(
    sees_only: Option<&'b UserId>,
    out: &mut AstPass<'_, 'b, Pg>,
) -> QueryResult<()> {
    if let Some(user) = sees_only {
        out.push_sql(" and sessions.user_id = ");
        out.push_bind_param::<Text, _>(user)?;
    }
    Ok(())
}

/// Appends a CTE `locked` that locks the sessions of the relation `listed` for an update.
///
/// All statements that write several sessions lock them in the order of the primary key, or skip
/// locked ones: two statements that locked the same sessions in different orders could wait for each
/// other.
pub(crate) fn push_locked(listed: &str, out: &mut AstPass<'_, '_, Pg>) {
    out.push_sql(
        "locked as (
           select sessions.organization_id, sessions.id from sessions join ",
    );
    out.push_sql(listed);
    out.push_sql(
        " as listed on sessions.organization_id = listed.organization_id and sessions.id = listed.id
           order by sessions.organization_id, sessions.id for update of sessions)",
    );
}

#[cfg(test)]
mod tests {
    use greenroom_domain::SessionStatus;

    use super::*;

    #[test]
    fn open_statuses_are_those_of_the_domain() {
        let statuses = SessionStatus::OPEN.map(|status| format!("'{status}'")).join(", ");
        assert_eq!(OPEN, format!("status in ({statuses})"));
    }
}
