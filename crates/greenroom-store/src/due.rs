//! Finds the sessions to check in the buckets of this process.

use chrono::TimeDelta;
use diesel::declare_sql_function;
use diesel::dsl::{now, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Bool, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId};

use crate::StoreError;
use crate::bucket::HeldBuckets;
use crate::schema::sessions;
use crate::sql::{PlannedEachTime, interval};

/// Time after which a due session may be checked by a process that does not hold its bucket: the
/// holder has lost LiveKit, is overloaded, or cannot decode the session.
pub const NEGLECTED_AFTER: TimeDelta = TimeDelta::seconds(20);

/// A search of [`DueRange::Recent`] finds the sessions that became due, or neglected, at most this long
/// ago. To miss no session, a process must search for all due sessions at shorter intervals than this,
/// and after each failed search.
pub const RECENTLY_DUE: TimeDelta = TimeDelta::seconds(15);

/// Identifies a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Queryable)]
pub struct SessionKey {
    /// The organization to which the session belongs.
    pub organization_id: OrganizationId,
    /// Unique within the organization.
    pub id: SessionId,
}

/// The order in which due sessions are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueOrder {
    /// Start with the sessions that have been due for longest.
    OldestFirst,
    /// Start with the sessions that became due last.
    NewestFirst,
}

impl DueOrder {
    /// The opposite order.
    #[must_use]
    pub fn toggled(self) -> Self {
        match self {
            Self::OldestFirst => Self::NewestFirst,
            Self::NewestFirst => Self::OldestFirst,
        }
    }
}

/// Which due sessions a search finds. While a long transaction holds a snapshot, PostgreSQL keeps the
/// index entries of all earlier times, and a search reads those in its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueRange {
    /// Sessions that became due recently: within 15 s for checks, see [`RECENTLY_DUE`], and within one
    /// minute for deadlines. The search stays fast while a long transaction holds a snapshot.
    Recent,
    /// All due sessions.
    All,
}

/// A search for due sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueSearch {
    /// Which sessions are found.
    pub range: DueRange,
    /// In which order.
    pub order: DueOrder,
}

impl DueSearch {
    /// Finds all due sessions, and those first that have been due for longest.
    pub const ALL: Self = Self { range: DueRange::All, order: DueOrder::OldestFirst };
}

impl DueRange {
    /// SQL condition: `next_check_at` is not after `at`, and in the range [`Self::Recent`] at most
    /// `recent` before it.
    pub(crate) fn condition(self, at: &str, recent: TimeDelta) -> String {
        let is_due = format!("next_check_at <= {at}");
        match self {
            Self::Recent => format!("{is_due} and next_check_at > {at} - {}", interval(recent)),
            Self::All => is_due,
        }
    }
}

/// Finds up to `limit` due sessions in the buckets that this process holds.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn due_sessions(
    connection: &mut AsyncPgConnection,
    held: &HeldBuckets,
    limit: usize,
    search: DueSearch,
) -> Result<Vec<SessionKey>, StoreError> {
    let due = sessions::table
        .filter(sql::<Bool>(&search.range.condition("now()", RECENTLY_DUE)))
        .filter(session_bucket(sessions::id).eq_any(numbers(held)))
        .select((sessions::organization_id, sessions::id))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    let keys = match search.order {
        DueOrder::OldestFirst => {
            PlannedEachTime(due.order(sessions::next_check_at.asc())).load(connection).await
        }
        DueOrder::NewestFirst => {
            PlannedEachTime(due.order(sessions::next_check_at.desc())).load(connection).await
        }
    };
    Ok(keys?)
}

/// Finds up to `limit` [neglected](NEGLECTED_AFTER) sessions of other buckets, those first that are
/// due for longest.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn neglected_sessions(
    connection: &mut AsyncPgConnection,
    held: &HeldBuckets,
    limit: usize,
    range: DueRange,
) -> Result<Vec<SessionKey>, StoreError> {
    let since = format!("now() - {}", interval(NEGLECTED_AFTER));
    let neglected = sessions::table
        .filter(sql::<Bool>(&range.condition(&since, RECENTLY_DUE)))
        .filter(session_bucket(sessions::id).ne_all(numbers(held)))
        .order(sessions::next_check_at)
        .select((sessions::organization_id, sessions::id))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    Ok(PlannedEachTime(neglected).load(connection).await?)
}

/// Makes a session due, so that the holder of its bucket checks it.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn make_due(
    connection: &mut AsyncPgConnection,
    key: SessionKey,
) -> Result<(), StoreError> {
    MakeDue(key).execute(connection).await?;
    Ok(())
}

/// Handwritten, because diesel prepares its own updates anew for each execution.
#[derive(QueryId)]
struct MakeDue(SessionKey);

impl QueryFragment<Pg> for MakeDue {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "update sessions set next_check_at = now(), revision = revision + 1
             where next_check_at is not null and organization_id = ",
        );
        out.push_bind_param::<Uuid, _>(&self.0.organization_id)?;
        out.push_sql(" and id = ");
        out.push_bind_param::<Uuid, _>(&self.0.id)
    }
}

/// A session that needs a further check, whether now or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct ScheduledSession {
    /// The session.
    pub key: SessionKey,
    /// Whether the session seems to wait for no change, so that its next check is not urgent.
    pub seems_idle: bool,
}

/// Finds up to `limit` sessions that need a further check, in the buckets that this process holds, in
/// the order of their deadlines. Leaves out sessions whose room is gone: they need only the check at
/// their deadline.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn scheduled_sessions(
    connection: &mut AsyncPgConnection,
    held: &HeldBuckets,
    limit: usize,
) -> Result<Vec<ScheduledSession>, StoreError> {
    // An estimate is enough: `TrackedSession::is_idle` decides at the check.
    let seems_idle = sql::<Bool>(
        "status in ('pending', 'active') and room_missing_since is null and room_finished_at is null
         and agent_left_at is null and (status = 'active' or user_joined_at is null)
         and (user_left_at is null or user_left_at <= user_joined_at)
         and (room_creation = 'on_join' or room_created_at is not null)
         and (agent_status in ('none', 'ready', 'unavailable')
           or agent_status = 'waiting' and room_creation = 'on_join')",
    );
    // An agent may re-open a room in the first seconds after it was deleted.
    let long_gone = now.into_sql::<Timestamptz>() - NEGLECTED_AFTER;
    let scheduled = sessions::table
        .filter(sessions::next_check_at.is_not_null())
        .filter(
            sessions::room_gone_at.is_null().or(sessions::room_gone_at.gt(long_gone.nullable())),
        )
        .filter(session_bucket(sessions::id).eq_any(numbers(held)))
        .order(sessions::next_check_at)
        .select(((sessions::organization_id, sessions::id), seems_idle))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX));
    Ok(PlannedEachTime(scheduled).load(connection).await?)
}

fn numbers(held: &HeldBuckets) -> Vec<i16> {
    held.keys().map(|bucket| bucket.number()).collect()
}

#[declare_sql_function]
extern "SQL" {
    /// The SQL form of [`SessionId::bucket`].
    fn session_bucket(id: Uuid) -> SmallInt;
}
