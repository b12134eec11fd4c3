//! Reading sessions by their ids, many with one statement.

use diesel::deserialize::FromSqlRow;
use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::sql_types::{Array, Uuid};
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;
use greenroom_domain::{OrganizationId, SessionId};

use super::Session;
use crate::listed_row::decode_columns;
use crate::{SessionKey, StoreError};

type Columns = <Session as Selectable<Pg>>::SelectExpression;

/// Reads sessions, in no particular order. Omits keys without a session. A row that cannot be decoded
/// is an error of its own and does not hide the others.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn find_many(
    connection: &mut AsyncPgConnection,
    keys: &[SessionKey],
) -> Result<Vec<(SessionKey, Result<Session, StoreError>)>, StoreError> {
    let (organizations, ids) = keys.iter().map(|key| (key.organization_id, key.id)).unzip();
    let columns = <Session as Selectable<Pg>>::construct_selection();
    let query = FindSessions { columns, organizations, ids };
    let mut rows = AsyncConnectionCore::load(connection, query).await?;
    let mut found = Vec::with_capacity(keys.len());
    while let Some(row) = rows.try_next().await? {
        let (organization_id, id) = decode_columns::<_, (Uuid, Uuid)>(&row, 0..2)?;
        let session = <Session as FromSqlRow<SqlTypeOf<Columns>, Pg>>::build_from_row(&row);
        let session = session.map_err(|error| DieselError::DeserializationError(error).into());
        found.push((SessionKey { organization_id, id }, session));
    }
    Ok(found)
}

#[derive(QueryId)]
struct FindSessions {
    columns: Columns,
    organizations: Vec<OrganizationId>,
    ids: Vec<SessionId>,
}

impl Query for FindSessions {
    type SqlType = SqlTypeOf<Columns>;
}

impl QueryFragment<Pg> for FindSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" from unnest(");
        out.push_bind_param::<Array<Uuid>, _>(&self.organizations)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Uuid>, _>(&self.ids)?;
        // As in the statement of starts, `number * 0 = 0` and `offset 0` make PostgreSQL search the
        // primary key for each row, whatever the size of the table, so it can keep the plan.
        out.push_sql(
            ") with ordinality as listed (organization_id, id, number)
             cross join lateral (
               select * from sessions where organization_id = listed.organization_id
                 and id = listed.id offset 0) as sessions
             where number * 0 = 0",
        );
        Ok(())
    }
}
