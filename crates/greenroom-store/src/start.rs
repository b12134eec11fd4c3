//! The statement of a start, which inserts a session from the current version of its template.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::StoreError;
use crate::new_session::NewSession;
use crate::organization::SessionLock;
use crate::resume::ResumeOrInsertSession;
use crate::session_setup::{SessionSetupColumns, StartedRow, StartedRowSql};

impl NewSession {
    /// Inserts the session. If the key is [implicit](crate::StartKey::Implicit) and its session is
    /// resumable, extends the `token_expiry` of that session and returns it instead.
    ///
    /// `lock` comes from [`lock_sessions`](crate::organization::lock_sessions) in the same
    /// transaction. Without it, or with the lock of another organization, the insert writes nothing
    /// for an organization with a limit.
    ///
    /// Returns `None` if
    /// - the organization has no such template, or the template is archived,
    /// - the template has a setting that this version does not know,
    /// - the template names another agent,
    /// - another session holds the key,
    /// - the organization has reached its limit, or has a limit and was not locked.
    ///
    /// # Errors
    /// Returns [`Constraint::RoomName`](crate::Constraint::RoomName) if another session has the
    /// room name, and another [`StoreError`] if the query fails.
    pub async fn insert(
        &self,
        connection: &mut AsyncPgConnection,
        lock: Option<&SessionLock>,
    ) -> Result<Option<StartedRow>, StoreError> {
        let columns = SessionSetupColumns::new();
        let is_locked = lock.is_some_and(|lock| lock.organization() == self.organization_id);
        let counted = lock.and_then(SessionLock::counted);
        let started = match (self.key.implicit(), is_locked) {
            (Some(key), false) => {
                ResumeOrInsertSession::<false> { new: self, key, counted, columns }
                    .get_result(connection)
                    .await
            }
            (Some(key), true) => {
                ResumeOrInsertSession::<true> { new: self, key, counted, columns }
                    .get_result(connection)
                    .await
            }
            (None, false) => {
                InsertSession::<false> { new: self, counted, columns }.get_result(connection).await
            }
            (None, true) => {
                InsertSession::<true> { new: self, counted, columns }.get_result(connection).await
            }
        };
        Ok(started.optional()?)
    }
}

/// Handwritten, because diesel's query builder cannot express an `insert … select` that also
/// returns columns of the selected table, and diesel prepares a `sql_query` anew for each
/// execution.
struct InsertSession<'a, const LOCKED: bool> {
    new: &'a NewSession,
    /// Open sessions, if the lock had to count them.
    counted: Option<i64>,
    columns: SessionSetupColumns,
}

impl<const LOCKED: bool> QueryId for InsertSession<'_, LOCKED> {
    type QueryId = InsertSession<'static, LOCKED>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LOCKED: bool> Query for InsertSession<'_, LOCKED> {
    type SqlType = StartedRowSql;
}

impl<const LOCKED: bool> QueryFragment<Pg> for InsertSession<'_, LOCKED> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("with template as (");
        self.new.push_template::<LOCKED>(&self.counted, out.reborrow())?;
        out.push_sql("), ");
        self.new.push_insert(out.reborrow())?;
        self.columns.push_started(out)
    }
}
