//! Ends that nothing in LiveKit tells of: somebody asked for it, or its room was never opened.

use diesel::dsl::{AsSelect, SqlTypeOf};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{EndReason, OrganizationId, SessionId, SessionStatus};

use crate::{Session, StoreError};

/// How a session comes to its end other than by what LiveKit shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// Somebody asked for it.
    Requested,
    /// LiveKit did not open its room.
    RoomNotOpened,
}

impl EndCause {
    fn outcome(self) -> (SessionStatus, EndReason) {
        match self {
            Self::Requested => (SessionStatus::Ended, EndReason::Requested),
            Self::RoomNotOpened => (SessionStatus::Failed, EndReason::LiveKitError),
        }
    }

    /// A replay may have opened the room that this start did not.
    fn condition(self) -> &'static str {
        match self {
            Self::Requested => "",
            Self::RoomNotOpened => "room_created_at is null and ",
        }
    }

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
    /// Ends a living session, which is then due at once, so that whatever room it has is deleted.
    /// None when it is over already, not there,
    /// or what it should come to its end by is not so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
        cause: EndCause,
    ) -> Result<Option<Self>, StoreError> {
        let shown = Self::as_select();
        let end = EndSession { organization, id, cause, shown };
        Ok(end.get_result(connection).await.optional()?)
    }
}

struct EndSession {
    organization: OrganizationId,
    id: SessionId,
    cause: EndCause,
    shown: AsSelect<Session, Pg>,
}

impl QueryId for EndSession {
    type QueryId = ();
    // The text differs by the end, and is what the prepared statement is found by.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for EndSession {
    type SqlType = SqlTypeOf<AsSelect<Session, Pg>>;
}

impl QueryFragment<Pg> for EndSession {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let (status, reason) = self.cause.outcome();
        // Outside, `sessions` is what was written of the table inside.
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
            " returning *), told as (
               insert into session_events (organization_id, session_id, at, event, detail)
               select organization_id, id, now(), event, detail::jsonb from sessions, (values ",
        );
        out.push_sql(self.cause.events());
        out.push_sql(") as events (event, detail)) select ");
        self.shown.walk_ast(out.reborrow())?;
        out.push_sql(" from sessions");
        Ok(())
    }
}
