//! Organizations: the tenants. Their rows carry limits, and come into being with the first template.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::OrganizationId;

use crate::StoreError;
use crate::schema::organizations;

/// Sees to it that the organization's row is there.
///
/// # Errors
/// When the database fails.
pub async fn ensure(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> Result<(), StoreError> {
    diesel::insert_into(organizations::table)
        .values(organizations::id.eq(organization))
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(())
}
