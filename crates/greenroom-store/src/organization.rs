//! Organizations, the tenants: their rows, locks and limits of open sessions.

use std::collections::HashSet;

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_query;
use diesel::sql_types::{Bool, Integer, Nullable, Text, Uuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionCount};

use crate::StoreError;
use crate::open_sessions::{self, HAS_COUNT};
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

/// Proof that the current transaction blocks other starts of an organization, so that no other
/// start takes the place that its open sessions leave. Only [`lock_sessions`] creates one.
#[derive(Debug)]
pub struct SessionLock {
    organization: OrganizationId,
    maximum: Option<SessionCount>,
    /// Whether the open sessions are counted, or the count has begun.
    is_counted: bool,
    /// Open sessions, if the organization has a limit and no finished count.
    counted: Option<i64>,
}

impl SessionLock {
    /// The organization that is locked.
    #[must_use]
    pub fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// Maximum number of open sessions. `None` means that the organization has no limit.
    #[must_use]
    pub fn maximum(&self) -> Option<SessionCount> {
        self.maximum
    }

    /// Whether a start needs the lock, because the organization has a limit or its open sessions are
    /// counted.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.maximum.is_some() || self.is_counted
    }

    /// Whether the start had to count the open sessions, because the organization has a limit and
    /// no finished [count](open_sessions).
    #[must_use]
    pub fn needs_count(&self) -> bool {
        self.counted.is_some()
    }

    /// The number of open sessions, if the start had to count them.
    pub(crate) fn counted(&self) -> Option<i64> {
        self.counted
    }
}

/// Blocks other starts in an organization with a limit until the transaction ends.
///
/// `default` is the server's default limit. Call this in a separate statement before the insert:
/// an insert that waited for the lock itself would read the count as of before the wait.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn lock_sessions(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    default: Option<SessionCount>,
) -> Result<SessionLock, StoreError> {
    let (maximum, is_counted, has_count) =
        SelectMaxSessions::<true> { organization, default }.read(connection).await?;
    let counted = match maximum {
        Some(_) if !has_count => Some(count(connection, organization).await?),
        _ => None,
    };
    Ok(SessionLock { organization, maximum, is_counted, counted })
}

/// Returns the maximum number of open sessions of an organization, and their current number. A
/// maximum of `None` means no limit. `default` is the server's default limit.
///
/// Reads the finished [count](open_sessions) of the organization. Without one, counts the sessions.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn usage(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    default: Option<SessionCount>,
) -> Result<(Option<SessionCount>, i64), StoreError> {
    let (maximum, ..) =
        SelectMaxSessions::<false> { organization, default }.read(connection).await?;
    let open = match open_sessions::read(connection, organization).await? {
        Some(open) => open,
        None => count(connection, organization).await?,
    };
    Ok((maximum, open))
}

/// Counts the open sessions of an organization.
async fn count(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
) -> QueryResult<i64> {
    sessions::table
        .filter(sessions::organization_id.eq(organization))
        // A literal: with a bind parameter the planner cannot use the partial index
        // `sessions_live`.
        .filter(sql::<Bool>(OPEN))
        .count()
        .get_result(connection)
        .await
}

/// Pushes the maximum number of pending and active sessions of the row of `organizations`, which is
/// null without a limit: the organization's own limit, otherwise the server's default.
#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "the statement borrows its bind parameters"
)]
pub(crate) fn push_max_sessions<'b>(
    default: &'b Option<SessionCount>,
    out: &mut AstPass<'_, 'b, Pg>,
) -> QueryResult<()> {
    out.push_sql("case when not unlimited then coalesce(max_active_sessions, ");
    out.push_bind_param::<Nullable<Integer>, _>(default)?;
    out.push_sql(") end");
    Ok(())
}

/// Selects the maximum of [`push_max_sessions`], whether the open sessions are counted, and whether
/// their count is finished. Locks the organization's row if `LOCK` is true.
struct SelectMaxSessions<const LOCK: bool> {
    organization: OrganizationId,
    default: Option<SessionCount>,
}

impl<const LOCK: bool> SelectMaxSessions<LOCK> {
    async fn read(
        self,
        connection: &mut AsyncPgConnection,
    ) -> Result<(Option<SessionCount>, bool, bool), StoreError> {
        let default = self.default;
        let found: Option<(Option<i32>, bool, bool)> =
            self.get_result(connection).await.optional()?;
        // An organization without a row has the server's default. The table allows larger numbers
        // than `SessionCount` does, which count as the largest.
        let largest = SessionCount::constant::<{ SessionCount::MAX }>();
        Ok(found.map_or((default, false, false), |(maximum, is_counted, has_count)| {
            let maximum = maximum.map(i64::from).map(SessionCount::try_from);
            (maximum.map(|maximum| maximum.unwrap_or(largest)), is_counted, has_count)
        }))
    }
}

impl<const LOCK: bool> QueryId for SelectMaxSessions<LOCK> {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LOCK: bool> Query for SelectMaxSessions<LOCK> {
    type SqlType = (Nullable<Integer>, Bool, Bool);
}

impl<const LOCK: bool> QueryFragment<Pg> for SelectMaxSessions<LOCK> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select ");
        push_max_sessions(&self.default, &mut out)?;
        out.push_sql(", is_counted, ");
        out.push_sql(HAS_COUNT);
        out.push_sql(" from organizations where id = ");
        out.push_bind_param::<Uuid, _>(&self.organization)?;
        if LOCK {
            out.push_sql(" for no key update");
        }
        Ok(())
    }
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

/// Sets the limit of an organization, and inserts the organization's row if it has none.
///
/// A start without a [`SessionLock`] that is in progress may have read the previous limit. Wait for
/// the [`session_writers`] after the commit.
///
/// The open sessions are counted only for [`SessionLimit::AtMost`], as soon as their count has
/// [begun](open_sessions). Under the server's default limit, the next start begins the count.
///
/// # Errors
/// Returns a [`StoreError`] if a query fails.
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
    let set = async |connection: &mut AsyncPgConnection| {
        diesel::insert_into(organizations::table)
            .values((organizations::id.eq(organization), row))
            .on_conflict(organizations::id)
            .do_update()
            .set(row)
            .execute(connection)
            .await?;
        match limit {
            SessionLimit::AtMost(_) => Ok(()),
            SessionLimit::Default | SessionLimit::Unlimited => {
                open_sessions::end(connection, organization).await
            }
        }
    };
    Ok(connection.transaction(set).await?)
}

/// Returns the ids of the transactions that are writing sessions, of any organization.
/// PostgreSQL does not reuse an id.
///
/// A statement locks its tables before it takes its snapshot. Therefore, a statement that writes
/// sessions and does not observe an earlier commit is among these transactions.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn session_writers(
    connection: &mut AsyncPgConnection,
) -> Result<HashSet<String>, StoreError> {
    let writers: Vec<SessionWriter> = sql_query(
        "select distinct virtualtransaction from pg_locks
         where locktype = 'relation' and relation = 'sessions'::regclass
           and database = (select oid from pg_database where datname = current_database())
           and mode = 'RowExclusiveLock' and granted",
    )
    .load(connection)
    .await?;
    Ok(writers.into_iter().map(|writer| writer.virtualtransaction).collect())
}

#[derive(QueryableByName)]
struct SessionWriter {
    #[diesel(sql_type = Text)]
    virtualtransaction: String,
}
