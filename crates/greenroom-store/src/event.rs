//! A session's timeline.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::TimelineEvent;
use greenroom_domain::{JsonObject, OrganizationId, SessionId};

use crate::StoreError;
use crate::schema::session_events;

/// Something that happened to a session.
#[derive(Debug, Clone, PartialEq, Queryable)]
pub struct SessionEvent {
    /// When Greenroom learned of it.
    pub at: DateTime<Utc>,
    pub event: TimelineEvent,
    pub detail: JsonObject,
}

impl SessionEvent {
    /// What has been written of a session, oldest first. That it was created stands in its row.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        session: SessionId,
    ) -> Result<Vec<Self>, StoreError> {
        let of_session = session_events::organization_id
            .eq(organization)
            .and(session_events::session_id.eq(session));
        let events = session_events::table.filter(of_session).order(session_events::seq).select((
            session_events::at,
            session_events::event,
            session_events::detail,
        ));
        Ok(events.load(connection).await?)
    }
}
