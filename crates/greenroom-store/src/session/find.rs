//! Reading sessions by their ids, many with one statement.

use diesel::deserialize::FromSqlRow;
use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::sql_types::Uuid;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;

use super::Session;
use crate::listed_keys::{ListedKeys, ONE_ROW};
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
    let columns = <Session as Selectable<Pg>>::construct_selection();
    let query = FindSessions { columns, keys: ListedKeys::new(keys) };
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
    keys: ListedKeys,
}

impl Query for FindSessions {
    type SqlType = SqlTypeOf<Columns>;
}

impl QueryFragment<Pg> for FindSessions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" from ");
        self.keys.push(&mut out)?;
        out.push_sql(ONE_ROW);
        Ok(())
    }
}
