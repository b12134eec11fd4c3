//! Sessions: reads, and the writes of a start after LiveKit has answered.

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

/// The columns of a session that the API shows.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = sessions, check_for_backend(Pg))]
pub struct Session {
    pub organization_id: OrganizationId,
    pub id: SessionId,
    pub session_template_id: SessionTemplateId,
    /// The version of the template that the session was started from. Never changes.
    pub session_template_version: i32,
    /// `None` means that the user is a guest.
    pub user_id: Option<UserId>,
    /// The tracks that the user may publish. `None` means all.
    pub modality_profile: Option<ModalityProfile>,
    /// `None` leaves the choice to the client.
    pub enabled_panels: Option<EnabledPanels>,
    pub metadata: Option<JsonObject>,
    pub room_name: RoomName,
    /// The LiveKit identity of the user.
    pub participant_identity: ParticipantIdentity,
    /// The template's value, or `on_join` if the start continued without LiveKit.
    pub room_creation: RoomCreation,
    pub status: SessionStatus,
    pub agent_status: AgentStatus,
    pub end_reason: Option<EndReason>,
    /// The latest expiry of the issued tokens.
    pub token_expiry: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    /// When the session became active.
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    /// The session expires if the user has not joined by this time.
    pub join_by: DateTime<Utc>,
}

/// Conditions on the sessions of a list. The default lists all sessions.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Sessions with one of these statuses. If empty, sessions with any status.
    pub status: Vec<SessionStatus>,
    pub user_id: Option<UserId>,
    pub session_template_id: Option<SessionTemplateId>,
    /// Sessions that were created at this time or later, in milliseconds.
    pub created_after: Option<DateTime<Utc>>,
    /// Sessions that were created before this time, in milliseconds.
    pub created_before: Option<DateTime<Utc>>,
}

impl Session {
    /// Reads a session. Returns `None` if the organization has no such session.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
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

    /// Lists up to `limit` sessions of an organization, newest first.
    ///
    /// No index supports a filter on a template or on final statuses. Such a query may scan all
    /// sessions of the organization until PostgreSQL cancels it after 5 s.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
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
                // A literal: with a bind parameter the planner cannot use the index
                // `sessions_live`.
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

    /// Records that LiveKit opened the room and dispatched the agent with it. `sid` is LiveKit's id
    /// of the room. Returns false and records nothing if the session is over or does not exist.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
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

    /// Changes a session to `on_join` after LiveKit failed to open its room, so that the user's
    /// join opens the room. Returns false if the session is no longer pending, or if its room was
    /// opened meanwhile.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn defer_room_to_join(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<bool, StoreError> {
        let unopened = sessions::table
            .find((organization, id))
            .filter(sessions::status.eq(SessionStatus::Pending))
            .filter(sessions::room_created_at.is_null());
        let deferred = diesel::update(unopened)
            .set((
                sessions::room_creation.eq(RoomCreation::OnJoin),
                sessions::revision.eq(sessions::revision + 1),
            ))
            .execute(connection)
            .await?;
        Ok(deferred > 0)
    }

    /// Makes a session due, so that the keeper checks it next.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
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

/// Handwritten, so that diesel prepares it once per connection, unlike a `sql_query`.
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
        // Overwrites no fact that a webhook or the keeper recorded meanwhile: `coalesce` keeps set
        // times, and only the agent status `waiting` becomes `dispatched`.
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
            " returning sessions.organization_id, sessions.id, before.agent_status = 'waiting' as is_dispatched),
             new_events as (
               insert into session_events (organization_id, session_id, at, event, source_id)
               select organization_id, id, now(), 'room_created', ",
        );
        out.push_bind_param::<sql_types::Text, _>(&self.source_id)?;
        out.push_sql(
            " from session
               union all select organization_id, id, now(), 'agent_dispatched', null from session where is_dispatched
               on conflict do nothing)
             select count(*) from session",
        );
        Ok(())
    }
}
