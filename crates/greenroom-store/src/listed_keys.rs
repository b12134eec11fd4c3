//! Sessions that a statement finds by their keys, many at once.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryId};
use diesel::sql_types::{Array, Uuid};
use greenroom_domain::{OrganizationId, SessionId};

use crate::SessionKey;

/// The `where` clause of a statement with [`ListedKeys`]. It is always true, and lowers PostgreSQL's
/// estimate to one row, as in the statement of starts.
pub(crate) const ONE_ROW: &str = " where number * 0 = 0";

/// The keys of sessions, as one array per column.
#[derive(QueryId)]
pub(crate) struct ListedKeys {
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
}

impl ListedKeys {
    pub(crate) fn new(keys: &[SessionKey]) -> Self {
        let (organizations, ids) = keys.iter().map(|key| (key.organization_id, key.id)).unzip();
        Self { organizations, ids }
    }

    /// Pushes the tables of a `from` clause: the keys as `listed`, and their sessions as `sessions`.
    ///
    /// With [`ONE_ROW`] and `offset 0`, PostgreSQL searches the primary key for each key, whatever the
    /// size of the table, so it can keep the plan.
    pub(crate) fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("unnest(");
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        out.push_sql(
            ") with ordinality as listed (organization_id, id, number)
             cross join lateral (
               select * from sessions where organization_id = listed.organization_id
                 and id = listed.id offset 0) as sessions",
        );
        Ok(())
    }
}
