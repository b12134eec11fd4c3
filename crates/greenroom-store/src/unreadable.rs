//! Sessions to check whose rows cannot be decoded, and the postponement of their next check.

use chrono::TimeDelta;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::row::Row;
use diesel::sql_types::{Array, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId};

use crate::listed_row::decode_columns;
use crate::sql::{push_interval, push_locked};
use crate::{SessionKey, StoreError};

/// Time until a session that cannot be decoded is read again.
const POSTPONEMENT: TimeDelta = TimeDelta::minutes(1);

/// A session whose row cannot be decoded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnreadableSession {
    /// The organization to which the session belongs.
    pub organization_id: OrganizationId,
    /// Unique within the organization.
    pub id: SessionId,
    /// The value that cannot be decoded.
    pub error: String,
}

impl UnreadableSession {
    /// Returns the ids of the session.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        SessionKey { organization_id: self.organization_id, id: self.id }
    }

    /// Reads the ids of a row of a check, which are its second and third column.
    pub(crate) fn new<'a>(
        row: &impl Row<'a, Pg>,
        error: &(dyn std::error::Error + 'static),
    ) -> Result<Self, StoreError> {
        let (organization_id, id) = decode_columns::<_, (Uuid, Uuid)>(row, 1..3)?;
        Ok(Self { organization_id, id, error: error.to_string() })
    }
}

/// Postpones the next check of sessions that cannot be decoded by a minute. They would otherwise
/// fill every batch. A minute is short enough for a rolling update, in which
/// another process can decode them.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn postpone_unreadable(
    connection: &mut AsyncPgConnection,
    unreadable: &[UnreadableSession],
) -> Result<(), StoreError> {
    let (organizations, ids) =
        unreadable.iter().map(|session| (session.organization_id, session.id)).unzip();
    PostponeSessions { organizations, ids }.execute(connection).await?;
    Ok(())
}

#[derive(QueryId)]
struct PostponeSessions {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
}

impl QueryFragment<Pg> for PostponeSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("with unreadable (organization_id, id) as (select * from unnest(");
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        out.push_sql(")), ");
        push_locked("unreadable", &mut out);
        // The maximum duration is enforced without decoding the row, when the row is due.
        out.push_sql(" update sessions set next_check_at = least(now() + ");
        push_interval(POSTPONEMENT, &mut out);
        out.push_sql(
            ", case when end_by > now() then end_by end), revision = revision + 1
             from locked where sessions.organization_id = locked.organization_id and sessions.id = locked.id
               and sessions.next_check_at <= now()",
        );
        Ok(())
    }
}
