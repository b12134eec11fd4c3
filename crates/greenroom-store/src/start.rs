//! The statement of a start: one round trip writes the session from its template's current version.

use chrono::{DateTime, Utc};
use diesel::dsl::{AsSelect, SqlTypeOf};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::template::{JoinWindow, ReconnectWindow, TokenTtl};
use greenroom_domain::{
    AgentName, JsonObject, OrganizationId, ParticipantIdentity, RoomName, SessionId,
    SessionTemplateId, UserId,
};

use crate::{Session, StoreError};

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
    /// The id's millisecond.
    pub created_at: DateTime<Utc>,
    /// From when the token's life counts, by the clock that mints it.
    pub token_issued_at: DateTime<Utc>,
    /// The life of the token when the template names none.
    pub default_token_ttl: TokenTtl,
}

/// A written session, and what of its template opens the room.
#[derive(Debug, Clone, Queryable)]
pub struct Started {
    pub session: Session,
    pub agent_name: Option<AgentName>,
    pub agent_metadata: JsonObject,
    pub join_window: JoinWindow,
    pub reconnect_window: ReconnectWindow,
}

impl NewSession {
    /// Writes the session, or nothing when the organization has no such living template.
    ///
    /// # Errors
    /// [`Constraint::RoomName`](crate::Constraint::RoomName) when the room's name is taken, else
    /// when the database fails.
    pub async fn insert(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Option<Started>, StoreError> {
        let start = Start { new: self, shown: Session::as_select() };
        Ok(start.get_result(connection).await.optional()?)
    }
}

/// A fragment of its own: an `insert … select` that also returns what it selected from is beyond
/// diesel's builder, and a `sql_query` would be prepared anew each time.
struct Start<'a> {
    new: &'a NewSession,
    shown: AsSelect<Session, Pg>,
}

impl QueryId for Start<'_> {
    type QueryId = Start<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Start<'_> {
    type SqlType = (SqlTypeOf<AsSelect<Session, Pg>>, Nullable<Text>, Jsonb, Integer, Integer);
}

impl QueryFragment<Pg> for Start<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let new = self.new;
        out.push_sql(
            "with template as (
               select * from session_templates
               where superseded_at is null and archived_at is null and organization_id = ",
        );
        out.push_bind_param::<Uuid, _>(&new.organization_id)?;
        out.push_sql(" and id = ");
        out.push_bind_param::<Uuid, _>(&new.session_template_id)?;
        // Named like the table, so that the columns of `Session` are found in it.
        out.push_sql(
            "), sessions as (
               insert into sessions (
                 organization_id, session_template_id, session_template_version,
                 modality_profile, enabled_panels, room_creation, status, agent_status, join_by, next_check_at,
                 id, user_id, metadata, room_name, participant_identity, created_at, token_expiry)
               select
                 organization_id, id, version,
                 modality_profile, enabled_panels, room_creation, 'pending',
                 case when agent_name is null then 'none' else 'waiting' end,
                 now() + make_interval(secs => join_window_seconds),
                 case room_creation
                   when 'on_start' then now() + interval '6 seconds'
                   else now() + make_interval(secs => join_window_seconds) end, ",
        );
        out.push_bind_param::<Uuid, _>(&new.id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Text>, _>(&new.user_id)?;
        out.push_sql(", ");
        out.push_bind_param::<Nullable<Jsonb>, _>(&new.metadata)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&new.room_name)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&new.participant_identity)?;
        out.push_sql(", ");
        out.push_bind_param::<Timestamptz, _>(&new.created_at)?;
        out.push_sql(", ");
        out.push_bind_param::<Timestamptz, _>(&new.token_issued_at)?;
        out.push_sql(" + make_interval(secs => coalesce(token_ttl_seconds, ");
        out.push_bind_param::<Integer, _>(&new.default_token_ttl)?;
        out.push_sql(")) from template returning *) select ");
        self.shown.walk_ast(out.reborrow())?;
        out.push_sql(
            ", template.agent_name, template.agent_metadata,
                template.join_window_seconds, template.reconnect_window_seconds
             from sessions, template",
        );
        Ok(())
    }
}
