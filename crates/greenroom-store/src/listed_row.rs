//! The rows of a list, of which some may not be decodable.

use diesel::deserialize::FromSqlRow;
use diesel::dsl::SqlTypeOf;
use diesel::expression::Expression;
use diesel::pg::Pg;
use diesel::prelude::Selectable;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::row::Row;
use diesel::sql_types;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::StoreError;

/// A row of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedRow<T> {
    /// The id, which orders the list.
    pub id: Uuid,
    /// The decoded row, or the reason why it cannot be decoded: a value that breaks a rule, because it
    /// was written by hand or by the next version.
    pub row: Result<T, String>,
}

/// Loads a list whose first two columns are the organization and the id.
pub(crate) async fn load_listed<T, Q>(
    connection: &mut AsyncPgConnection,
    query: Q,
    id: impl Fn(&T) -> Uuid,
) -> Result<Vec<ListedRow<T>>, StoreError>
where
    T: Selectable<Pg> + FromSqlRow<SqlTypeOf<T::SelectExpression>, Pg>,
    T::SelectExpression: Expression,
    Q: AsQuery,
    Q::Query: QueryFragment<Pg> + QueryId + Send,
{
    let mut rows = AsyncConnectionCore::load(connection, query).await?;
    let mut listed = Vec::new();
    while let Some(row) = rows.try_next().await? {
        listed.push(match T::build_from_row(&row) {
            Ok(decoded) => ListedRow { id: id(&decoded), row: Ok(decoded) },
            Err(error) => ListedRow { id: id_of(&row)?, row: Err(error.to_string()) },
        });
    }
    Ok(listed)
}

fn id_of<'a>(row: &impl Row<'a, Pg>) -> Result<Uuid, StoreError> {
    let id = row.partial_row(1..2);
    let id = <Uuid as FromSqlRow<sql_types::Uuid, Pg>>::build_from_row(&id);
    Ok(id.map_err(DieselError::DeserializationError)?)
}
