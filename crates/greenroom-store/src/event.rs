//! The timeline of a session.

use chrono::{DateTime, Utc};
use diesel::deserialize::FromSqlRow;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Jsonb, Text, Timestamptz};
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;
use greenroom_domain::lifecycle::TimelineEvent;
use greenroom_domain::{JsonObject, Lenient, OrganizationId, SessionId};

use crate::StoreError;
use crate::schema::session_events;

/// The SQL types of a [`SessionEvent`].
type EventSql = (Timestamptz, Text, Jsonb);

/// An event in the timeline of a session.
#[derive(Debug, Clone, PartialEq, Queryable)]
pub struct SessionEvent {
    /// When Greenroom learned of the event, by PostgreSQL's clock.
    pub at: DateTime<Utc>,
    /// The kind of the event.
    pub event: Lenient<TimelineEvent>,
    /// Further facts, such as `livekit_at`, `identity` or `end_reason`. May be empty.
    pub detail: JsonObject,
}

impl SessionEvent {
    /// Lists the recorded events of a session, oldest first. `created` is not among them: it
    /// follows from [`Session::created_at`](crate::Session::created_at). An event that cannot be
    /// decoded, because it was written by hand or by the next version, is an error text and does not
    /// hide the others.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn list(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        session: SessionId,
    ) -> Result<Vec<Result<Self, String>>, StoreError> {
        let of_session = session_events::organization_id
            .eq(organization)
            .and(session_events::session_id.eq(session));
        let events = session_events::table.filter(of_session).order(session_events::seq).select((
            session_events::at,
            session_events::event,
            session_events::detail,
        ));
        let mut rows = AsyncConnectionCore::load(connection, events).await?;
        let mut listed = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let event = <Self as FromSqlRow<EventSql, Pg>>::build_from_row(&row);
            listed.push(event.map_err(|error| error.to_string()));
        }
        Ok(listed)
    }
}
