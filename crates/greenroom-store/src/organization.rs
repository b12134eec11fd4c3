//! Organizations: the tenants. Their rows carry limits, and come into being with the first template.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::OrganizationId;

use crate::StoreError;
use crate::schema::{organizations, sessions};

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

/// Holds off every other start of an organization with a limit until the end of the transaction, and
/// tells how many of its sessions may live at once; none is any number.
///
/// In a statement of its own: one that waited for the lock would count what it saw before it waited.
///
/// # Errors
/// When the database fails.
pub async fn lock_sessions(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    default: Option<i32>,
) -> Result<Option<i32>, StoreError> {
    let row = organizations::table
        .find(organization)
        .select((organizations::max_active_sessions, organizations::unlimited))
        .for_no_key_update()
        .first(connection)
        .await
        .optional()?;
    Ok(SessionLimit::of_row(row).at_most(default))
}

/// How many sessions of an organization may live at once (none is any number), and how many do.
///
/// # Errors
/// When the database fails.
pub async fn usage(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    default: Option<i32>,
) -> Result<(Option<i32>, i64), StoreError> {
    let row = organizations::table
        .find(organization)
        .select((organizations::max_active_sessions, organizations::unlimited))
        .first(connection)
        .await
        .optional()?;
    let living = sessions::table
        .filter(sessions::organization_id.eq(organization))
        // Literally: behind a parameter the planner does not see the index of the living.
        .filter(sql::<Bool>("status in ('pending', 'active')"))
        .count()
        .get_result(connection)
        .await?;
    Ok((SessionLimit::of_row(row).at_most(default), living))
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

impl SessionLimit {
    /// Of the two columns; an organization without a row has the server's default.
    fn of_row(row: Option<(Option<i32>, bool)>) -> Self {
        match row {
            Some((_, true)) => Self::Unlimited,
            Some((Some(sessions), false)) => Self::AtMost(sessions),
            Some((None, false)) | None => Self::Default,
        }
    }

    /// How many that are, where the server's default is this; none is any number.
    fn at_most(self, default: Option<i32>) -> Option<i32> {
        match self {
            Self::Default => default,
            Self::AtMost(sessions) => Some(sessions),
            Self::Unlimited => None,
        }
    }
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
