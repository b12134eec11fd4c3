//! Organizations, the tenants: their rows, locks and limits of open sessions.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionCount};

use crate::StoreError;
use crate::schema::{organizations, sessions};
use crate::sql::OPEN;

/// Inserts the row of an organization if it has none.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
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

/// Blocks other changes to the organization's templates until the transaction ends.
///
/// Locks the organization's row instead of the templates' rows, because two transactions that
/// exchange the names of two templates would otherwise wait for each other.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn lock_templates(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> Result<(), StoreError> {
    // `no key`, so that inserts of referencing rows, which take a key-share lock, need not wait.
    organizations::table
        .find(organization)
        .select(organizations::id)
        .for_no_key_update()
        .first::<OrganizationId>(connection)
        .await
        .optional()?;
    Ok(())
}

/// Proof that the current transaction blocks other starts of an organization, so that its open
/// sessions can be counted. Only [`lock_sessions`] creates one.
#[derive(Debug)]
pub struct SessionLock {
    maximum: Option<SessionCount>,
}

impl SessionLock {
    /// Maximum number of open sessions. `None` means that the organization has no limit.
    #[must_use]
    pub fn maximum(&self) -> Option<SessionCount> {
        self.maximum
    }
}

/// Blocks other starts in an organization with a limit until the transaction ends.
///
/// `default` is the server's default limit. Call this in a separate statement before the insert:
/// an insert that waited for the lock itself would count the sessions as of before the wait.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn lock_sessions(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    default: Option<SessionCount>,
) -> Result<SessionLock, StoreError> {
    let row = organizations::table
        .find(organization)
        .select((organizations::max_active_sessions, organizations::unlimited))
        .for_no_key_update()
        .first(connection)
        .await
        .optional()?;
    Ok(SessionLock { maximum: SessionLimit::from_row(row).maximum(default) })
}

/// Returns the maximum number of open sessions of an organization, and their current number. A
/// maximum of `None` means no limit. `default` is the server's default limit.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn usage(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    default: Option<SessionCount>,
) -> Result<(Option<SessionCount>, i64), StoreError> {
    let row = organizations::table
        .find(organization)
        .select((organizations::max_active_sessions, organizations::unlimited))
        .first(connection)
        .await
        .optional()?;
    let open_sessions = sessions::table
        .filter(sessions::organization_id.eq(organization))
        // A literal: with a bind parameter the planner cannot use the partial index
        // `sessions_live`.
        .filter(sql::<Bool>(OPEN))
        .count()
        .get_result(connection)
        .await?;
    Ok((SessionLimit::from_row(row).maximum(default), open_sessions))
}

/// The maximum number of open sessions (`pending` or `active`) of an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLimit {
    /// The server's default.
    Default,
    /// At most this number. With zero, no session starts.
    AtMost(SessionCount),
    /// No limit, even if the server has a default.
    Unlimited,
}

impl SessionLimit {
    /// Converts the columns `max_active_sessions` and `unlimited`. An organization without a row
    /// has the server's default. The table allows larger numbers than [`SessionCount`] does, which
    /// count as the largest.
    fn from_row(row: Option<(Option<i32>, bool)>) -> Self {
        match row {
            Some((_, true)) => Self::Unlimited,
            Some((Some(sessions), false)) => {
                let largest = SessionCount::constant::<{ SessionCount::MAX }>();
                Self::AtMost(SessionCount::try_from(i64::from(sessions)).unwrap_or(largest))
            }
            Some((None, false)) | None => Self::Default,
        }
    }

    /// The limit as a number, given the server's default. `None` means no limit.
    fn maximum(self, default: Option<SessionCount>) -> Option<SessionCount> {
        match self {
            Self::Default => default,
            Self::AtMost(sessions) => Some(sessions),
            Self::Unlimited => None,
        }
    }
}

/// Sets the limit of an organization, and inserts the organization's row if it has none.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn set_limit(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    limit: SessionLimit,
) -> Result<(), StoreError> {
    let row = (
        organizations::max_active_sessions.eq(match limit {
            SessionLimit::AtMost(sessions) => Some(sessions.get()),
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
