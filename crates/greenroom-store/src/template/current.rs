//! The living templates of an organization, all of them, by their names.

use diesel::define_sql_function;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, TemplateName};

use super::SessionTemplate;
use crate::StoreError;
use crate::schema::session_templates;

define_sql_function! {
    /// As the index compares names.
    fn lower(name: Text) -> Text;
}

/// A name as names are compared: without regard to case, by PostgreSQL's own rules, for it is
/// PostgreSQL that keeps them apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FoldedName(String);

#[derive(QueryableByName)]
struct Folded {
    #[diesel(sql_type = Text)]
    name: String,
}

impl FoldedName {
    /// These names, in their order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of(
        connection: &mut AsyncPgConnection,
        names: impl Iterator<Item = &TemplateName>,
    ) -> Result<Vec<Self>, StoreError> {
        let names: Vec<_> = names.map(TemplateName::as_str).collect();
        let folded: Vec<Folded> = sql_query(
            "select lower(name) as name from unnest($1) with ordinality as given (name, place) \
             order by place",
        )
        .bind::<Array<Text>, _>(names)
        .load(connection)
        .await?;
        Ok(folded.into_iter().map(|folded| Self(folded.name)).collect())
    }
}

impl SessionTemplate {
    /// Every living template of an organization, in the order of their names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn current(
        connection: &mut AsyncPgConnection,
        organization: OrganizationId,
    ) -> Result<Vec<(FoldedName, Self)>, StoreError> {
        let living: Vec<(String, Self)> = session_templates::table
            .filter(session_templates::organization_id.eq(organization))
            .filter(session_templates::superseded_at.is_null())
            .filter(session_templates::archived_at.is_null())
            .select((lower(session_templates::name), Self::as_select()))
            .load(connection)
            .await?;
        let mut living: Vec<_> =
            living.into_iter().map(|(name, template)| (FoldedName(name), template)).collect();
        // Here, for the order of a collation is not the same everywhere.
        living.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(living)
    }
}
