//! Lists in which a row that cannot be decoded does not hide the others.

use std::ops::Range;

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

/// A row of a list, decoded if possible.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedRow<T> {
    /// The id, which orders the list.
    pub id: Uuid,
    /// The decoded row, or the reason why it cannot be decoded: a value that breaks a rule, because it
    /// was written by hand or by the next version.
    pub row: Result<T, String>,
}

/// Loads a list. The first two columns of `query` must be the organization and the id.
pub(crate) async fn load_listed<T, Q>(
    connection: &mut AsyncPgConnection,
    query: Q,
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
        let id = decode_columns::<Uuid, sql_types::Uuid>(&row, 1..2)?;
        listed.push(ListedRow {
            id,
            row: T::build_from_row(&row).map_err(|error| error.to_string()),
        });
    }
    Ok(listed)
}

/// Decodes some columns of a row that may not be decodable as a whole.
pub(crate) fn decode_columns<'a, T, S>(
    row: &impl Row<'a, Pg>,
    columns: Range<usize>,
) -> Result<T, StoreError>
where
    T: FromSqlRow<S, Pg>,
{
    let decoded = T::build_from_row(&row.partial_row(columns));
    Ok(decoded.map_err(DieselError::DeserializationError)?)
}
