//! Sessions: reading them, and what a start writes after LiveKit has answered.

use chrono::{DateTime, Utc};
use diesel::dsl::{now, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::TimelineEvent;
use greenroom_domain::{
    AgentStatus, EnabledPanels, EndReason, JsonObject, ModalityProfile, OrganizationId,
    ParticipantIdentity, RoomCreation, RoomName, SessionId, SessionStatus, SessionTemplateId,
    UserId,
};

use crate::schema::sessions;
use crate::{PageStart, StoreError};

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
        start: PageStart<SessionId>,
        limit: i64,
    ) -> Result<Vec<Self>, StoreError> {
        let mut query = sessions::table
            .filter(sessions::organization_id.eq(organization))
            .order(sessions::id.desc())
            .limit(limit)
            .select(Self::as_select())
            .into_boxed();
        match start {
            PageStart::Offset(0) => {}
            PageStart::Offset(offset) => query = query.offset(offset),
            PageStart::After(id) => query = query.filter(sessions::id.lt(id)),
        }
        if !filter.status.is_empty() {
            query = query.filter(sessions::status.eq_any(&filter.status));
            if filter.status.iter().all(|status| SessionStatus::OPEN.contains(status)) {
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
    /// lives. `sid` is LiveKit's own name for the room.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_room_created(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
        sid: &str,
    ) -> Result<bool, StoreError> {
        let source_id = format!("{}/{sid}", TimelineEvent::RoomCreated);
        let written: i64 =
            RecordRoomCreated { organization, id, source_id }.get_result(connection).await?;
        Ok(written > 0)
    }

    /// Leaves the opening of the room, which LiveKit did not do, to the user's joining. False when
    /// that is too late: the session is over, or its room was opened after all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn defer_room_to_join(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<bool, StoreError> {
        let unopened = sessions::table
            .find((organization, id))
            .filter(sessions::status.eq(SessionStatus::Pending))
            .filter(sessions::room_created_at.is_null());
        let left = diesel::update(unopened)
            .set((
                sessions::room_creation.eq(RoomCreation::OnJoin),
                sessions::revision.eq(sessions::revision + 1),
            ))
            .execute(connection)
            .await?;
        Ok(left > 0)
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
struct RecordRoomCreated {
    organization: OrganizationId,
    id: SessionId,
    source_id: String,
}

impl Query for RecordRoomCreated {
    type SqlType = sql_types::BigInt;
}

impl QueryFragment<Pg> for RecordRoomCreated {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "with before as (
               select agent_status from sessions
               where status in ('pending', 'active') and organization_id = ",
        );
        out.push_bind_param::<sql_types::Uuid, _>(&self.organization)?;
        out.push_sql(" and id = ");
        out.push_bind_param::<sql_types::Uuid, _>(&self.id)?;
        // Facts are kept by coalesce, and only `waiting` becomes `dispatched`: whoever saw more in
        // the meantime is not overwritten.
        out.push_sql(
            " for update), session as (
               update sessions set
                 room_created_at = coalesce(room_created_at, now()),
                 agent_wanted_since = case when before.agent_status <> 'none' then coalesce(agent_wanted_since, now()) end,
                 last_dispatch_at = case when before.agent_status <> 'none' then coalesce(last_dispatch_at, now()) end,
                 agent_status = case before.agent_status when 'waiting' then 'dispatched' else before.agent_status end,
                 next_check_at = least(next_check_at, now() + interval '6 seconds'),
                 revision = revision + 1
               from before where sessions.organization_id = ",
        );
        out.push_bind_param::<sql_types::Uuid, _>(&self.organization)?;
        out.push_sql(" and sessions.id = ");
        out.push_bind_param::<sql_types::Uuid, _>(&self.id)?;
        out.push_sql(
            " returning sessions.organization_id, sessions.id, before.agent_status = 'waiting' as asks),
             told as (
               insert into session_events (organization_id, session_id, at, event, source_id)
               select organization_id, id, now(), 'room_created', ",
        );
        out.push_bind_param::<sql_types::Text, _>(&self.source_id)?;
        out.push_sql(
            " from session
               union all select organization_id, id, now(), 'agent_dispatched', null from session where asks
               on conflict do nothing)
             select count(*) from session",
        );
        Ok(())
    }
}
