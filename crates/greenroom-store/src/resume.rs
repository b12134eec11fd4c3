//! The statement of a start with an implicit key, which resumes the user's session or inserts one.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Binary, Uuid};

use crate::idempotency::{KeyClaim, resumable};
use crate::new_session::{NewSession, TOKEN_ISSUED_AT, push_token_expiry};
use crate::session_setup::{SessionSetupColumns, StartedRowSql, TEMPLATE_JOIN};

/// Extends the `token_expiry` of the session that holds the key if its user may come back to it.
/// Otherwise inserts a new session.
pub(crate) struct ResumeOrInsertSession<'a, const LOCKED: bool> {
    pub(crate) new: &'a NewSession,
    pub(crate) key: &'a KeyClaim,
    /// Open sessions, if the lock had to count them.
    pub(crate) counted: Option<i64>,
    pub(crate) columns: SessionSetupColumns,
}

impl<const LOCKED: bool> QueryId for ResumeOrInsertSession<'_, LOCKED> {
    type QueryId = ResumeOrInsertSession<'static, LOCKED>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LOCKED: bool> Query for ResumeOrInsertSession<'_, LOCKED> {
    type SqlType = StartedRowSql;
}

impl<const LOCKED: bool> QueryFragment<Pg> for ResumeOrInsertSession<'_, LOCKED> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let new = self.new;
        // Leaves `revision` unchanged, like `ReissueToken` and for the same reason.
        out.push_sql("with resumed as (update sessions set token_expiry = greatest(token_expiry, ");
        push_token_expiry(&new.default_token_ttl, "template", out.reborrow())?;
        out.push_sql(") from session_templates template where ");
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(" and sessions.organization_id = ");
        out.push_bind_param::<Uuid, _>(&new.organization_id)?;
        out.push_sql(" and sessions.idempotency_key = ");
        out.push_bind_param::<Binary, _>(&self.key.hash)?;
        out.push_sql(" and ");
        out.push_sql(&resumable());
        out.push_sql(" returning sessions.*), template as (");
        new.push_template::<LOCKED>(&self.counted, out.reborrow())?;
        out.push_sql(" and not exists (select from resumed)), ");
        new.push_insert(out.reborrow())?;
        self.columns.push_started(out.reborrow())?;
        out.push_sql(" union all select ");
        self.columns.push(out.reborrow())?;
        out.push_sql(", ");
        push_token_expiry(&new.default_token_ttl, "template", out.reborrow())?;
        out.push_sql(", ");
        out.push_sql(TOKEN_ISSUED_AT);
        out.push_sql(
            ", sessions.room_created_at is not null
               from resumed as sessions join session_templates template on ",
        );
        out.push_sql(TEMPLATE_JOIN);
        Ok(())
    }
}
