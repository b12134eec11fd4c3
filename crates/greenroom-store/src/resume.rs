//! The statement of an end user's start: the session they may come back to, or else a new one.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Binary, Uuid};

use crate::idempotency::{KeyClaim, RESUMABLE};
use crate::session_setup::{SessionSetupColumns, TEMPLATE_JOIN};
use crate::start::{NewSession, StartedRowSql};

/// A start whose key is the request itself.
pub(crate) struct ResumeOrInsert<'a, const LOCKED: bool> {
    pub(crate) new: &'a NewSession,
    pub(crate) key: &'a KeyClaim,
    pub(crate) columns: SessionSetupColumns,
}

impl<const LOCKED: bool> QueryId for ResumeOrInsert<'_, LOCKED> {
    type QueryId = ResumeOrInsert<'static, LOCKED>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LOCKED: bool> Query for ResumeOrInsert<'_, LOCKED> {
    type SqlType = StartedRowSql;
}

impl<const LOCKED: bool> QueryFragment<Pg> for ResumeOrInsert<'_, LOCKED> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let new = self.new;
        // Like any further token it adds nothing to `revision`: see `renewal.rs`.
        out.push_sql("with again as (update sessions set token_expiry = greatest(token_expiry, ");
        new.token.push_expiry("template", out.reborrow())?;
        out.push_sql(") from session_templates template where ");
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(" and sessions.organization_id = ");
        out.push_bind_param::<Uuid, _>(&new.organization_id)?;
        out.push_sql(" and sessions.idempotency_key = ");
        out.push_bind_param::<Binary, _>(&self.key.hash)?;
        out.push_sql(" and ");
        out.push_sql(RESUMABLE);
        out.push_sql(" returning sessions.*), template as (");
        new.push_template::<LOCKED>(out.reborrow())?;
        out.push_sql(" and not exists (select from again)), ");
        new.push_insert(out.reborrow())?;
        self.columns.push_started(out.reborrow())?;
        out.push_sql(" union all select ");
        self.columns.push(out.reborrow())?;
        out.push_sql(", ");
        new.token.push_expiry("template", out.reborrow())?;
        out.push_sql(
            ", sessions.room_created_at is not null
               from again as sessions join session_templates template on ",
        );
        out.push_sql(TEMPLATE_JOIN);
        Ok(())
    }
}
