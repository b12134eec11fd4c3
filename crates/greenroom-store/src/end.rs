//! The statement that ends a session on request, or because its room was not opened.

use diesel::dsl::{AsSelect, SqlTypeOf};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{EndReason, OrganizationId, SessionId, SessionStatus};

use crate::{Session, StoreError};

/// Why a session ends without an observation of its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// A caller ended it. The session becomes `ended`.
    Requested,
    /// LiveKit did not open its room. The session becomes `failed`.
    RoomNotOpened,
}

impl EndCause {
    fn outcome(self) -> (SessionStatus, EndReason) {
        match self {
            Self::Requested => (SessionStatus::Ended, EndReason::Requested),
            Self::RoomNotOpened => (SessionStatus::Failed, EndReason::LiveKitError),
        }
    }

    /// A replay of the start may have opened the room meanwhile; then the session must not fail.
    fn condition(self) -> &'static str {
        match self {
            Self::Requested => "",
            Self::RoomNotOpened => "room_created_at is null and ",
        }
    }

    /// The timeline events as rows of a `values` list.
    fn events(self) -> &'static str {
        match self {
            Self::Requested => {
                "('end_requested', '{}'), ('ended', '{\"end_reason\": \"requested\"}')"
            }
            Self::RoomNotOpened => "('failed', '{\"end_reason\": \"livekit_error\"}')",
        }
    }
}

impl Session {
    /// Ends a pending or active session and makes it due, so that the keeper deletes its room.
    ///
    /// Returns `None` if the session does not exist or is already over, or if the cause is
    /// [`EndCause::RoomNotOpened`] and the room has been opened.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn end(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
        cause: EndCause,
    ) -> Result<Option<Self>, StoreError> {
        let columns = Self::as_select();
        let end = EndSession { organization, id, cause, columns };
        Ok(end.get_result(connection).await.optional()?)
    }
}

struct EndSession {
    organization: OrganizationId,
    id: SessionId,
    cause: EndCause,
    columns: AsSelect<Session, Pg>,
}

impl QueryId for EndSession {
    type QueryId = ();
    // The text depends on the cause, so diesel caches the prepared statement by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for EndSession {
    type SqlType = SqlTypeOf<AsSelect<Session, Pg>>;
}

impl QueryFragment<Pg> for EndSession {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let (status, reason) = self.cause.outcome();
        // The CTE has the table's name, so that the columns of `Session` resolve to the updated
        // row.
        out.push_sql("with sessions as (update sessions set ended_at = now(), next_check_at = now(), revision = revision + 1, status = '");
        out.push_sql(status.as_str());
        out.push_sql("', end_reason = '");
        out.push_sql(reason.as_str());
        out.push_sql("' where status in ('pending', 'active') and ");
        out.push_sql(self.cause.condition());
        out.push_sql("organization_id = ");
        out.push_bind_param::<sql_types::Uuid, _>(&self.organization)?;
        out.push_sql(" and id = ");
        out.push_bind_param::<sql_types::Uuid, _>(&self.id)?;
        out.push_sql(
            " returning *), new_events as (
               insert into session_events (organization_id, session_id, at, event, detail)
               select organization_id, id, now(), event, detail::jsonb from sessions, (values ",
        );
        out.push_sql(self.cause.events());
        out.push_sql(") as events (event, detail)) select ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" from sessions");
        Ok(())
    }
}
