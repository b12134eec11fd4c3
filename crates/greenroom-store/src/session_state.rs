//! The statuses of many sessions, read in one statement for requests that wait for a change.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, Text, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{AgentStatus, Lenient, OrganizationId, SessionId, SessionStatus};

use crate::StoreError;

/// The status of a session and of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
#[non_exhaustive]
pub struct SessionState {
    /// The organization to which the session belongs.
    pub organization_id: OrganizationId,
    /// Unique within the organization.
    pub id: SessionId,
    /// `ended`, `expired` and `failed` are final.
    pub status: Lenient<SessionStatus>,
    /// Keeps its last value after the session is over.
    pub agent_status: Lenient<AgentStatus>,
}

impl SessionState {
    /// Reads the states of the sessions, in no particular order. Sessions that do not exist are
    /// missing from the result.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn find_all(
        connection: &mut AsyncPgConnection,
        sessions: &[(OrganizationId, SessionId)],
    ) -> Result<Vec<Self>, StoreError> {
        let (organizations, ids) = sessions.iter().copied().unzip();
        Ok(SelectSessionStates { organizations, ids }.load(connection).await?)
    }
}

struct SelectSessionStates {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
}

impl QueryId for SelectSessionStates {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for SelectSessionStates {
    type SqlType = (Uuid, Uuid, Text, Text);
}

impl QueryFragment<Pg> for SelectSessionStates {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "select organization_id, id, status, agent_status from sessions
             join unnest(",
        );
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        out.push_sql(") as requested (organization_id, id) using (organization_id, id)");
        Ok(())
    }
}
