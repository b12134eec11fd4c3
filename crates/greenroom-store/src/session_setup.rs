//! A session with what its room is opened with, and its agent is asked for with.

use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Integer, Jsonb, Nullable, Text, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::template::ReconnectWindow;
use greenroom_domain::{
    AgentName, JsonObject, OrganizationId, ParticipantAttributes, ParticipantName, SessionId,
};

use crate::{Session, StoreError};

/// A session with what else its token says, and what of its template opens its room.
#[derive(Debug, Clone, Queryable)]
pub struct SessionSetup {
    pub session: Session,
    pub participant_name: Option<ParticipantName>,
    pub participant_attributes: Option<ParticipantAttributes>,
    pub agent_name: Option<AgentName>,
    pub agent_metadata: JsonObject,
    pub reconnect_window: ReconnectWindow,
    /// How many seconds are left until `join_by`, by PostgreSQL's clock; never less than none.
    pub join_within: i32,
}

impl SessionSetup {
    /// # Errors
    /// When the database fails.
    pub async fn find(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
        id: SessionId,
    ) -> Result<Option<Self>, StoreError> {
        let find = Find { organization, id, columns: SessionSetupColumns::new() };
        Ok(find.get_result(connection).await.optional()?)
    }
}

/// The columns of an [`SessionSetup`]: of a row named `sessions`, beside one of `session_templates` named
/// `template`.
pub(crate) struct SessionSetupColumns {
    session: <Session as Selectable<Pg>>::SelectExpression,
}

/// Their types.
pub(crate) type SessionSetupSql =
    (SessionSql, Nullable<Text>, Nullable<Jsonb>, Nullable<Text>, Jsonb, Integer, Integer);

type SessionSql = SqlTypeOf<<Session as Selectable<Pg>>::SelectExpression>;

impl SessionSetupColumns {
    pub(crate) fn new() -> Self {
        Self { session: <Session as Selectable<Pg>>::construct_selection() }
    }

    pub(crate) fn push<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.session.walk_ast(out.reborrow())?;
        out.push_sql(
            ", sessions.participant_name, sessions.participant_attributes,
               template.agent_name, template.agent_metadata, template.reconnect_window_seconds,
               greatest(0, ceil(extract(epoch from sessions.join_by - now())))::integer",
        );
        Ok(())
    }
}

/// The condition that joins a session to its version of its template.
pub(crate) const TEMPLATE_JOIN: &str = "template.organization_id = sessions.organization_id
    and template.id = sessions.session_template_id and template.version = sessions.session_template_version";

struct Find {
    organization: OrganizationId,
    id: SessionId,
    columns: SessionSetupColumns,
}

impl QueryId for Find {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for Find {
    type SqlType = SessionSetupSql;
}

impl QueryFragment<Pg> for Find {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select ");
        self.columns.push(out.reborrow())?;
        out.push_sql(" from sessions join session_templates template on ");
        out.push_sql(TEMPLATE_JOIN);
        out.push_sql(" where sessions.organization_id = ");
        out.push_bind_param::<Uuid, _>(&self.organization)?;
        out.push_sql(" and sessions.id = ");
        out.push_bind_param::<Uuid, _>(&self.id)
    }
}
