//! The statement of a start: one round trip writes the session from its template's current version.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::template::TokenTtl;
use greenroom_domain::{
    AgentName, JsonObject, OrganizationId, ParticipantAttributes, ParticipantIdentity,
    ParticipantName, RoomName, Seconds, SessionId, SessionTemplateId, UserId,
};

use crate::StoreError;
use crate::idempotency::{KeyClaim, KeyKind};
use crate::resume::ResumeOrInsert;
use crate::session_setup::{SessionSetup, SessionSetupColumns, SessionSetupSql};

/// What a start brings; the rest comes from the template.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub organization_id: OrganizationId,
    pub id: SessionId,
    pub session_template_id: SessionTemplateId,
    pub user_id: Option<UserId>,
    pub metadata: Option<JsonObject>,
    pub room_name: RoomName,
    pub participant_identity: ParticipantIdentity,
    pub participant_name: Option<ParticipantName>,
    pub participant_attributes: Option<ParticipantAttributes>,
    /// The agent that the template has to name; none is any, or nobody.
    pub agent_name: Option<AgentName>,
    /// The id's millisecond.
    pub created_at: DateTime<Utc>,
    pub token: TokenLifetime,
    /// How soon a session whose room its user opens is looked at.
    pub first_look_within: Seconds<1, 3_600>,
    /// Of one that may come again.
    pub key: Option<KeyClaim>,
    /// How many of an organization's sessions may live at once where its own row says nothing; none
    /// is any number.
    pub max_active_sessions: Option<i32>,
    /// Whether [`lock_sessions`](crate::organization::lock_sessions) came before, in the same
    /// transaction. Without it an organization with a limit starts nothing: its sessions could not
    /// be counted.
    pub sessions_locked: bool,
}

/// From when a token's life counts, by the clock that mints it, and how long that is where the
/// template names no life.
#[derive(Debug, Clone, Copy)]
pub struct TokenLifetime {
    pub issued_at: DateTime<Utc>,
    pub default_ttl: TokenTtl,
}

/// A session that a token is to be handed out for.
#[derive(Debug, Clone, Queryable)]
pub struct StartedRow {
    pub setup: SessionSetup,
    /// Of this token; the session's own is that of the latest.
    pub token_expiry: DateTime<Utc>,
    /// Whether its room is known to have been opened.
    pub room_created: bool,
}

/// The types of a [`StartedRow`].
pub(crate) type StartedRowSql = (SessionSetupSql, Timestamptz, Bool);

impl NewSession {
    /// Writes the session; or finds the one that its user may come back to, when the key is a
    /// refetch's, and puts its `token_expiry` off. Or nothing: when the organization has no such
    /// living template, when that names another agent, when the key is another session's, and when
    /// as many sessions live as may, or nobody made sure of that.
    ///
    /// # Errors
    /// [`Constraint::RoomName`](crate::Constraint::RoomName) when the room's name is taken, else
    /// when the database fails.
    pub async fn insert(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Option<StartedRow>, StoreError> {
        let columns = SessionSetupColumns::new();
        let refetch = self.key.as_ref().filter(|key| key.kind == KeyKind::Implicit);
        let started = match (refetch, self.sessions_locked) {
            (Some(key), false) => {
                ResumeOrInsert::<false> { new: self, key, columns }.get_result(connection).await
            }
            (Some(key), true) => {
                ResumeOrInsert::<true> { new: self, key, columns }.get_result(connection).await
            }
            (None, false) => Start::<false> { new: self, columns }.get_result(connection).await,
            (None, true) => Start::<true> { new: self, columns }.get_result(connection).await,
        };
        Ok(started.optional()?)
    }
}

impl NewSession {
    /// The template's current version, unless the organization may not start it now.
    ///
    /// Sessions are counted in the text for those that are locked alone: were it a parameter that
    /// says so, PostgreSQL would plan each statement anew, for a plan without the count is cheaper.
    pub(crate) fn push_template<'b, const LOCKED: bool>(
        &'b self,
        mut out: AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        out.push_sql(
            "select session_templates.* from session_templates
             join organizations on organizations.id = session_templates.organization_id
             cross join lateral (
               select case when not unlimited then coalesce(max_active_sessions, ",
        );
        out.push_bind_param::<Nullable<Integer>, _>(&self.max_active_sessions)?;
        out.push_sql(
            ") end as sessions) as most
             where superseded_at is null and archived_at is null and session_templates.organization_id = ",
        );
        out.push_bind_param::<Uuid, _>(&self.organization_id)?;
        out.push_sql(" and session_templates.id = ");
        out.push_bind_param::<Uuid, _>(&self.session_template_id)?;
        out.push_sql(" and agent_name is not distinct from coalesce(");
        out.push_bind_param::<Nullable<Text>, _>(&self.agent_name)?;
        out.push_sql(", agent_name) and (most.sessions is null");
        if LOCKED {
            out.push_sql(
                " or most.sessions > (
                    select count(*) from sessions
                    where status in ('pending', 'active') and organization_id = ",
            );
            out.push_bind_param::<Uuid, _>(&self.organization_id)?;
            out.push_sql(")");
        }
        out.push_sql(")");
        Ok(())
    }

    /// The session as a row named like the table, so that the columns of [`Session`](crate::Session)
    /// are found in it.
    pub(crate) fn push_insert<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "sessions as (
               insert into sessions (
                 organization_id, session_template_id, session_template_version,
                 modality_profile, enabled_panels, room_creation, status, agent_status, join_by, next_check_at,
                 id, user_id, metadata, room_name,
                 participant_identity, participant_name, participant_attributes, created_at,
                 idempotency_key, idempotency_fingerprint, token_expiry)
               select
                 organization_id, id, version,
                 modality_profile, enabled_panels, room_creation, 'pending',
                 case when agent_name is null then 'none' else 'waiting' end,
                 now() + make_interval(secs => join_window_seconds),
                 case room_creation
                   when 'on_start' then now() + interval '6 seconds'
                   else now() + make_interval(secs => least(join_window_seconds, ",
        );
        out.push_bind_param::<Integer, _>(&self.first_look_within)?;
        out.push_sql(")) end, ");
        out.push_bind_param::<Uuid, _>(&self.id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.user_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.metadata)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&self.room_name)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&self.participant_identity)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&self.participant_name)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&self.participant_attributes)?;
        out.push_sql(", ");
        out.push_bind_param::<Timestamptz, _>(&self.created_at)?;
        out.push_sql(", ");
        KeyClaim::push(self.key.as_ref(), out.reborrow())?;
        out.push_sql(", ");
        self.token.push_expiry("template", out.reborrow())?;
        out.push_sql(
            " from template
              on conflict (organization_id, idempotency_key) where idempotency_key is not null do nothing
              returning *)",
        );
        Ok(())
    }
}

impl TokenLifetime {
    /// When the token ends, of a row of `session_templates` with this name.
    pub(crate) fn push_expiry<'b>(
        &'b self,
        template: &str,
        mut out: AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        out.push_bind_param::<Timestamptz, _>(&self.issued_at)?;
        out.push_sql(" + make_interval(secs => coalesce(");
        out.push_sql(template);
        out.push_sql(".token_ttl_seconds, ");
        out.push_bind_param::<Integer, _>(&self.default_ttl)?;
        out.push_sql("))");
        Ok(())
    }
}

/// A fragment of its own: an `insert … select` that also returns what it selected from is beyond
/// diesel's builder, and a `sql_query` would be prepared anew each time.
struct Start<'a, const LOCKED: bool> {
    new: &'a NewSession,
    columns: SessionSetupColumns,
}

impl<const LOCKED: bool> QueryId for Start<'_, LOCKED> {
    type QueryId = Start<'static, LOCKED>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LOCKED: bool> Query for Start<'_, LOCKED> {
    type SqlType = StartedRowSql;
}

impl SessionSetupColumns {
    /// What is selected of a session that was just written, and its template.
    pub(crate) fn push_started<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(" select ");
        self.push(out.reborrow())?;
        out.push_sql(", sessions.token_expiry, false from sessions, template");
        Ok(())
    }
}

impl<const LOCKED: bool> QueryFragment<Pg> for Start<'_, LOCKED> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("with template as (");
        self.new.push_template::<LOCKED>(out.reborrow())?;
        out.push_sql("), ");
        self.new.push_insert(out.reborrow())?;
        self.columns.push_started(out)
    }
}
