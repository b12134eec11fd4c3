//! Sessions: reading them, and what a start writes after LiveKit has answered.

use chrono::{DateTime, Utc};
use diesel::dsl::{now, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{
    AgentStatus, EnabledPanels, EndReason, JsonObject, ModalityProfile, OrganizationId,
    ParticipantIdentity, RoomCreation, RoomName, SessionId, SessionStatus, SessionTemplateId,
    UserId,
};

use crate::schema::sessions;
use crate::{Position, StoreError};

/// What a session shows.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = sessions, check_for_backend(Pg))]
pub struct Session {
    pub organization_id: OrganizationId,
    pub id: SessionId,
    pub session_template_id: SessionTemplateId,
    /// The version it was started from, which it keeps.
    pub session_template_version: i32,
    pub user_id: Option<UserId>,
    pub modality_profile: Option<ModalityProfile>,
    pub enabled_panels: Option<EnabledPanels>,
    pub metadata: Option<JsonObject>,
    pub room_name: RoomName,
    pub participant_identity: ParticipantIdentity,
    pub room_creation: RoomCreation,
    pub status: SessionStatus,
    pub agent_status: AgentStatus,
    pub end_reason: Option<EndReason>,
    /// The latest of the tokens handed out.
    pub token_expiry: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Until when somebody must have joined.
    pub join_by: DateTime<Utc>,
}

/// Which sessions a list shows. Empty shows all.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Any of these; none is no condition.
    pub status: Vec<SessionStatus>,
    pub user_id: Option<UserId>,
    pub session_template_id: Option<SessionTemplateId>,
    /// Created then or later, to the millisecond.
    pub created_after: Option<DateTime<Utc>>,
    /// Created earlier, to the millisecond.
    pub created_before: Option<DateTime<Utc>>,
}

impl Session {
    /// # Errors
    /// When the database fails.
    pub async fn find(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<Option<Self>, StoreError> {
        let found = sessions::table
            .find((organization, id))
            .select(Self::as_select())
            .first(connection)
            .await
            .optional()?;
        Ok(found)
    }

    /// A part of the organization's sessions, newest first.
    ///
    /// A filter on a template or on terminal statuses has no index and may scan; PostgreSQL ends a
    /// statement after 5 s.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        filter: &SessionFilter,
        position: Position<SessionId>,
        limit: i64,
    ) -> Result<Vec<Self>, StoreError> {
        let mut query = sessions::table
            .filter(sessions::organization_id.eq(organization))
            .order(sessions::id.desc())
            .limit(limit)
            .select(Self::as_select())
            .into_boxed();
        match position {
            Position::Offset(0) => {}
            Position::Offset(offset) => query = query.offset(offset),
            Position::After(id) => query = query.filter(sessions::id.lt(id)),
        }
        if !filter.status.is_empty() {
            query = query.filter(sessions::status.eq_any(&filter.status));
            if filter.status.iter().all(|status| SessionStatus::LIVING.contains(status)) {
                // Literally: behind a parameter the planner does not see the index of the living.
                query = query.filter(sql::<sql_types::Bool>("status in ('pending', 'active')"));
            }
        }
        if let Some(user) = &filter.user_id {
            query = query.filter(sessions::user_id.eq(user));
        }
        if let Some(template) = filter.session_template_id {
            query = query.filter(sessions::session_template_id.eq(template));
        }
        if let Some(at) = filter.created_after {
            query = query.filter(sessions::id.ge(SessionId::first_from(at)));
        }
        if let Some(at) = filter.created_before {
            query = query.filter(sessions::id.lt(SessionId::first_from(at)));
        }
        Ok(query.load(connection).await?)
    }

    /// Writes that the room is there and its agent asked for, and tells whether the session still
    /// lives.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn room_created(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<bool, StoreError> {
        let written = RoomCreated { organization, id }.execute(connection).await?;
        Ok(written > 0)
    }

    /// Fails a living session, which is then due at once, so that whatever room it may have got
    /// after all is deleted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fail(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
        reason: EndReason,
    ) -> Result<(), StoreError> {
        let session = sessions::table.find((organization, id));
        diesel::update(session.filter(sessions::status.eq_any(SessionStatus::LIVING)))
            .set((
                sessions::status.eq(SessionStatus::Failed),
                sessions::end_reason.eq(reason),
                sessions::ended_at.eq(now),
                sessions::next_check_at.eq(now),
                sessions::revision.eq(sessions::revision + 1),
            ))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Has the keeper look at a session now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn make_due(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<(), StoreError> {
        diesel::update(sessions::table.find((organization, id)))
            .set((sessions::next_check_at.eq(now), sessions::revision.eq(sessions::revision + 1)))
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// A fragment of its own, so that it is prepared once a connection.
#[derive(QueryId)]
struct RoomCreated {
    organization: OrganizationId,
    id: SessionId,
}

impl QueryFragment<Pg> for RoomCreated {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // Facts are kept by coalesce, and only `waiting` becomes `dispatched`: whoever saw more in
        // the meantime is not overwritten.
        out.push_sql(
            "update sessions set
               room_created_at = coalesce(room_created_at, now()),
               agent_wanted_since = case when agent_status <> 'none' then coalesce(agent_wanted_since, now()) end,
               last_dispatch_at = case when agent_status <> 'none' then coalesce(last_dispatch_at, now()) end,
               agent_status = case agent_status when 'waiting' then 'dispatched' else agent_status end,
               next_check_at = least(next_check_at, now() + interval '6 seconds'),
               revision = revision + 1
             where status in ('pending', 'active') and organization_id = ",
        );
        out.push_bind_param::<sql_types::Uuid, _>(&self.organization)?;
        out.push_sql(" and id = ");
        out.push_bind_param::<sql_types::Uuid, _>(&self.id)
    }
}
