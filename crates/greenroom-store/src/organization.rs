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

/// Holds off every other change of the organization's templates until the end of the transaction.
///
/// One lock for all of them, and before any of their rows: two that exchange their names would
/// each wait for the other.
///
/// # Errors
/// When the database fails.
pub async fn lock_templates(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> Result<(), StoreError> {
    // Templates refer to the row, and `no key` lets new ones.
    organizations::table
        .find(organization)
        .select(organizations::id)
        .for_no_key_update()
        .first::<OrganizationId>(connection)
        .await
        .optional()?;
    Ok(())
}

/// How many sessions of an organization may live at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLimit {
    /// The server's default.
    Default,
    /// At most so many; with zero none starts.
    AtMost(i32),
    /// Any number, whatever the server's default.
    Unlimited,
}

/// Sets an organization's limit, and its row when it has none.
///
/// # Errors
/// When the database fails, or the limit is negative.
pub async fn set_limit(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    limit: SessionLimit,
) -> Result<(), StoreError> {
    let row = (
        organizations::max_active_sessions.eq(match limit {
            SessionLimit::AtMost(sessions) => Some(sessions),
            SessionLimit::Default | SessionLimit::Unlimited => None,
        }),
        organizations::unlimited.eq(limit == SessionLimit::Unlimited),
    );
    diesel::insert_into(organizations::table)
        .values((organizations::id.eq(organization), row))
        .on_conflict(organizations::id)
        .do_update()
        .set(row)
        .execute(connection)
        .await?;
    Ok(())
}
