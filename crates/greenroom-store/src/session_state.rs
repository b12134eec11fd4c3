//! How sessions stand that somebody waits for, all by one statement.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, Text, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{AgentStatus, OrganizationId, SessionId, SessionStatus};

use crate::StoreError;

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct SessionState {
    pub organization_id: OrganizationId,
    pub id: SessionId,
    pub status: SessionStatus,
    pub agent_status: AgentStatus,
}

impl SessionState {
    /// How these sessions stand, those that are there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_all(
        connection: &mut AsyncPgConnection,
        sessions: &[(OrganizationId, SessionId)],
    ) -> Result<Vec<Self>, StoreError> {
        let (organizations, ids) = sessions.iter().copied().unzip();
        Ok(SelectStates { organizations, ids }.load(connection).await?)
    }
}

struct SelectStates {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
}

impl QueryId for SelectStates {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for SelectStates {
    type SqlType = (Uuid, Uuid, Text, Text);
}

impl QueryFragment<Pg> for SelectStates {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "select organization_id, id, status, agent_status from sessions
             join unnest(",
        );
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        out.push_sql(") as awaited (organization_id, id) using (organization_id, id)");
        Ok(())
    }
}
