//! The current templates of an organization, in the order of their names.

use diesel::prelude::*;
use diesel::sql_types::{Array, Text};
use diesel::{define_sql_function, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, TemplateName};

use super::SessionTemplate;
use crate::StoreError;
use crate::schema::session_templates;

define_sql_function! {
    /// PostgreSQL's `lower`, with which the unique index on template names compares.
    fn lower(name: Text) -> Text;
}

/// A template name in lower case, for comparison without regard to case. PostgreSQL converts it,
/// because its unique index decides which names are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FoldedName(String);

#[derive(QueryableByName)]
struct FoldedNameRow {
    #[diesel(sql_type = Text)]
    name: String,
}

impl FoldedName {
    /// Folds the names and returns them in the same order.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the query fails.
    pub async fn of(
        connection: &mut AsyncPgConnection,
        names: impl Iterator<Item = &TemplateName>,
    ) -> Result<Vec<Self>, StoreError> {
        let names: Vec<_> = names.map(TemplateName::as_str).collect();
        let folded: Vec<FoldedNameRow> = sql_query(
            "select lower(name) as name from unnest($1) with ordinality as given (name, ordinal) \
             order by ordinal",
        )
        .bind::<Array<Text>, _>(names)
        .load(connection)
        .await?;
        Ok(folded.into_iter().map(|row| Self(row.name)).collect())
    }
}

/// Lists the current versions of an organization's templates that are not archived, in the
/// order of their folded names.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn current(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> Result<Vec<(FoldedName, SessionTemplate)>, StoreError> {
    let templates: Vec<(String, SessionTemplate)> = session_templates::table
        .filter(session_templates::organization_id.eq(organization))
        .filter(session_templates::superseded_at.is_null())
        .filter(session_templates::archived_at.is_null())
        .select((lower(session_templates::name), SessionTemplate::as_select()))
        .load(connection)
        .await?;
    let mut templates: Vec<_> =
        templates.into_iter().map(|(name, template)| (FoldedName(name), template)).collect();
    // Sorted here because the order in SQL depends on the collation of the database.
    templates.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(templates)
}
