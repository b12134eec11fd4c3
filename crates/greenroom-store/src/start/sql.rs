//! The text of the statement of starts.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{self, Integer, Uuid};
use greenroom_domain::OrganizationId;
use greenroom_domain::lifecycle::JOB_ASSIGNMENT_TIMEOUT;

use super::rows::Rows;
use crate::idempotency::resumable;
use crate::new_session::{StartDefaults, TOKEN_ISSUED_AT, push_token_expiry};
use crate::open_sessions::{push_count_inserted, push_open_sessions};
use crate::organization::push_max_sessions;
use crate::session_setup::{SessionSetupColumns, StartedRowSql, TEMPLATE_JOIN};
use crate::sql::push_interval;
use crate::template::IS_USABLE;

/// [`InsertSessions`] with one static query id per text. Each alternative has its own text: if a bind
/// parameter selected it, a custom plan could omit a part and look cheaper than the generic plan, so
/// PostgreSQL would plan every execution.
pub(super) struct Text<'a, const LOCKED: bool, const RESUMES: bool, const ONE: bool>(
    pub(super) InsertSessions<'a>,
);

/// Handwritten, because diesel's query builder cannot express an `insert … select` that also
/// returns columns of the selected table, and diesel prepares a `sql_query` anew for each
/// execution.
pub(super) struct InsertSessions<'a> {
    /// Whether any session has an implicit key, so that the statement may resume one.
    pub(super) resumes: bool,
    pub(super) rows: Rows<'a>,
    pub(super) defaults: StartDefaults,
    /// PostgreSQL's setting, in milliseconds. Zero means no limit.
    pub(super) lock_timeout: String,
    pub(super) limit: Limit,
    pub(super) columns: SessionSetupColumns,
}

/// How the statement respects limits of open sessions.
pub(super) enum Limit {
    /// Inserts nothing for organizations with a limit.
    Unlocked,
    /// All sessions belong to this organization, which the transaction has locked.
    Locked {
        organization: OrganizationId,
        /// Open sessions, if the lock had to count them.
        counted: Option<i64>,
    },
}

impl Limit {
    pub(super) fn is_locked(&self) -> bool {
        matches!(self, Self::Locked { .. })
    }
}

impl<const LOCKED: bool, const RESUMES: bool, const ONE: bool> QueryId
    for Text<'_, LOCKED, RESUMES, ONE>
{
    type QueryId = Text<'static, LOCKED, RESUMES, ONE>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LOCKED: bool, const RESUMES: bool, const ONE: bool> Query
    for Text<'_, LOCKED, RESUMES, ONE>
{
    type SqlType = (Uuid, StartedRowSql);
}

impl<const LOCKED: bool, const RESUMES: bool, const ONE: bool> QueryFragment<Pg>
    for Text<'_, LOCKED, RESUMES, ONE>
{
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.push(out)
    }
}

impl InsertSessions<'_> {
    fn push<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("with ");
        self.rows.push(&mut out)?;
        if self.resumes {
            self.push_resumed(&mut out)?;
        }
        out.push_sql(", startable as (");
        self.push_startable(&mut out)?;
        if self.resumes {
            out.push_sql(" where new.session_id not in (select new_id from resumed)");
        }
        out.push_sql("), ");
        self.push_within_limit(&mut out)?;
        out.push_sql(", ");
        self.push_insert(&mut out)?;
        out.push_sql(" select template.session_id, ");
        self.columns.push(out.reborrow())?;
        out.push_sql(", sessions.token_expiry, ");
        out.push_sql(TOKEN_ISSUED_AT);
        out.push_sql(
            ", false from sessions join template on template.session_id = sessions.id
               and template.organization_id = sessions.organization_id",
        );
        if let Limit::Locked { organization, .. } = &self.limit {
            out.push_sql(" where ");
            push_count_inserted(organization, &mut out)?;
        }
        if self.resumes {
            out.push_sql(" union all select sessions.new_id, ");
            self.columns.push(out.reborrow())?;
            out.push_sql(", ");
            push_token_expiry(&self.defaults.token_ttl, "template", out.reborrow())?;
            out.push_sql(", ");
            out.push_sql(TOKEN_ISSUED_AT);
            out.push_sql(
                ", sessions.room_created_at is not null from resumed as sessions cross join lateral (
                   select * from session_templates template where ",
            );
            out.push_sql(TEMPLATE_JOIN);
            out.push_sql(" offset 0) as template");
        }
        Ok(())
    }

    /// Pushes the CTE `resumed`: the resumable sessions that hold the implicit keys of new ones, with
    /// `token_expiry` extended. Leaves `revision` unchanged, as `ReissueToken` does: a client that starts
    /// constantly must not cause the keeper's commits to be refused. Writes the sessions in the order of
    /// the primary key, as all statements that write several do.
    fn push_resumed<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let resumable = resumable();
        out.push_sql(
            ", held as (select new.session_id as new_id, holder.* from new cross join lateral (
                 select sessions.organization_id, sessions.id, sessions.ctid, (
                   select token_ttl_seconds from session_templates template where ",
        );
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(
            ") from sessions
               where sessions.organization_id = new.organization_id
                 and sessions.idempotency_key = new.idempotency_key and ",
        );
        out.push_sql(&resumable);
        out.push_sql(
            " offset 0) as holder where new.is_key_implicit order by holder.organization_id, holder.id),
             resumed as (update sessions set token_expiry = greatest(token_expiry, ",
        );
        push_token_expiry(&self.defaults.token_ttl, "held", out.reborrow())?;
        // A concurrent update moves the row to another `ctid`. The session is then not resumed.
        out.push_sql(") from held where sessions.ctid = held.ctid and ");
        out.push_sql(&resumable);
        out.push_sql(" returning sessions.*, held.new_id)");
        Ok(())
    }

    /// Pushes a query for the rows, each with the current version of its template.
    fn push_startable<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "select new.*, template.version, template.modality_profile, template.enabled_panels,
               template.agent_name, template.agent_metadata, template.room_creation,
               template.join_window_seconds, template.reconnect_window_seconds,
               template.token_ttl_seconds, organizations.is_counted, ",
        );
        push_max_sessions(&self.defaults.max_active_sessions, out)?;
        out.push_sql(
            " as max_sessions from new
              cross join lateral (select * from organizations where id = new.organization_id",
        );
        out.push_sql(self.fence());
        out.push_sql(
            ") as organizations
              cross join lateral (
                select * from session_templates
                where organization_id = new.organization_id and id = new.session_template_id
                  and superseded_at is null and archived_at is null
                  and agent_name is not distinct from coalesce(new.requested_agent, agent_name) and ",
        );
        out.push_sql(IS_USABLE);
        out.push_sql(self.fence());
        out.push_sql(") as template");
        Ok(())
    }

    /// Returns the end of a subquery that is executed for each row of `new`, so that PostgreSQL does not
    /// join it in another way. If `new` is a single row that is used once, its values are parameters, for
    /// which PostgreSQL always searches the indexes.
    fn fence(&self) -> &'static str {
        if self.rows.is_one() && !self.resumes { "" } else { " offset 0" }
    }

    /// Pushes the CTE `template`: the rows of `startable` that the limit admits. Also makes the
    /// insert's trigger skip the count until the transaction ends: the sessions are not counted, or
    /// [`push_count_inserted`] counts them.
    fn push_within_limit<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match &self.limit {
            Limit::Unlocked => {
                out.push_sql(
                    "template as (select * from startable
                       where max_sessions is null and not is_counted
                         and (select set_config('greenroom.session_is_uncounted', 'true', true)) = 'true'
                         and ",
                );
                self.push_lock_timeout(out)?;
                out.push_sql(")");
            }
            // A session whose key is held does not count towards the limit. The organization's lock
            // blocks other starts, so no other session can take the key meanwhile.
            Limit::Locked { organization, counted } => {
                out.push_sql(
                    "placed as (select startable.*, row_number() over (order by number) as place
                       from startable where (
                         select true from sessions where sessions.organization_id = startable.organization_id
                           and sessions.idempotency_key = startable.idempotency_key) is null),
                     template as (select * from placed where (max_sessions is null or place <= max_sessions - ",
                );
                push_open_sessions(organization, counted, out)?;
                out.push_sql(
                    ") and (select set_config('greenroom.session_is_uncounted', 'true', true)) = 'true' and ",
                );
                self.push_lock_timeout(out)?;
                out.push_sql(")");
            }
        }
        Ok(())
    }

    /// Pushes a condition that is always true and limits the statement's waits for locks.
    fn push_lock_timeout<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("(select set_config('lock_timeout', ");
        out.push_bind_param::<sql_types::Text, _>(&self.lock_timeout)?;
        out.push_sql(", true)) is not null");
        Ok(())
    }

    /// Pushes a CTE that inserts the sessions from the CTE `template`. The CTE has the table's name,
    /// so that the columns of [`Session`](crate::Session) resolve to the inserted row.
    ///
    /// The sessions are ordered by key, so that two statements with the same keys cannot deadlock.
    fn push_insert<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "sessions as (
               insert into sessions (
                 organization_id, id, session_template_id, session_template_version,
                 modality_profile, enabled_panels, room_creation, status, agent_status,
                 user_id, metadata, room_name, participant_identity, participant_name, participant_attributes,
                 idempotency_key, idempotency_fingerprint, join_by, next_check_at, created_at, token_expiry)
               select
                 organization_id, session_id, session_template_id, version,
                 modality_profile, enabled_panels, room_creation, 'pending',
                 case when agent_name is null then 'none' else 'waiting' end,
                 user_id, metadata, room_name, participant_identity, participant_name, participant_attributes,
                 idempotency_key, idempotency_fingerprint,
                 now() + make_interval(secs => join_window_seconds),
                 now() + case when room_creation = 'on_start' then ",
        );
        push_interval(JOB_ASSIGNMENT_TIMEOUT, out);
        out.push_sql(
            " else make_interval(secs => case when is_first_check_remembered then join_window_seconds
                 else least(join_window_seconds, ",
        );
        out.push_bind_param::<Integer, _>(&self.defaults.first_check_within)?;
        // The API shows milliseconds, so a time that it returned selects the same sessions.
        out.push_sql(") end) end, date_trunc('milliseconds', now()), ");
        push_token_expiry(&self.defaults.token_ttl, "template", out.reborrow())?;
        out.push_sql(" from template");
        if !self.rows.is_one() {
            out.push_sql(" order by organization_id, idempotency_key, session_id");
        }
        out.push_sql(
            " on conflict (organization_id, idempotency_key) where idempotency_key is not null do nothing
              returning *)",
        );
        Ok(())
    }
}
