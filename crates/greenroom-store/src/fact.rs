//! The statement that merges a [`Fact`] into a session: the SQL form of `State::learn`.

mod new_events;
mod next_check;
mod opened_rooms;
mod sql;

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::{AsSelect, SqlTypeOf};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Bool, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::{OrganizationId, RoomName, SessionId, UserId};

use self::sql::RecordFact;
use crate::bucket::ReplicaId;
use crate::overdue::Deadline;
use crate::{DueRange, Session, SessionKey, StoreError};

pub use self::opened_rooms::{OpenedRoom, OpenedRooms};

/// The time of a fact that Greenroom itself reports, which is not used.
const NO_TIME: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// The session that a fact is about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// The session with this room, as in LiveKit's webhooks.
    Room(&'a RoomName),
    /// The session with this id, if the caller may see it.
    Session {
        /// The organization of the caller. Sessions of other organizations do not match.
        organization: OrganizationId,
        /// The id of the session.
        id: SessionId,
        /// The user that the session must have, from
        /// [`Caller::sees_only`](greenroom_domain::Caller::sees_only). `None` means any user or a
        /// guest.
        end_user: Option<&'a UserId>,
    },
    /// At most [`MAX_OVERDUE`](crate::overdue::MAX_OVERDUE) sessions whose deadline has passed. Use
    /// [`end_overdue`](crate::overdue::end_overdue), because [`record`] returns only the first.
    Overdue(Deadline, DueRange),
    /// The sessions of these rooms. Use [`record_rooms_opened`], because [`record`] returns only the
    /// first.
    Opened(&'a OpenedRooms),
}

/// A session that learned a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct Recorded {
    /// The session.
    pub key: SessionKey,
    /// Whether `holder` holds the session's bucket. It must then schedule the check in memory, because
    /// `next_check_at` was not set to now. Always false after a fact that ends the session.
    pub is_held: bool,
}

/// Merges a fact into its session, appends the timeline events and schedules the next check, in one
/// statement. The rules are those of `State::learn`, except that the next check is not stored if
/// `holder` holds the session's bucket.
///
/// `at` is LiveKit's time of the event, in whole seconds. Use [`record_own`] for a fact that Greenroom
/// itself reports, because such a fact has no time of LiveKit. Returns the session that learned the
/// fact. `None` means that the fact is about another participant, or that `State::learn` refuses it.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn record(
    connection: &mut AsyncPgConnection,
    subject: Subject<'_>,
    fact: &Fact,
    at: DateTime<Utc>,
    holder: Option<ReplicaId>,
) -> Result<Option<Recorded>, StoreError> {
    let record = SelectKeys(RecordFact::new(subject, fact, at, holder));
    Ok(record.get_result(connection).await.optional()?)
}

/// Merges a fact of Greenroom itself into up to [`MAX_OVERDUE`](crate::overdue::MAX_OVERDUE) sessions
/// whose deadline has passed, as [`record`] does. Returns their number.
pub(crate) async fn record_overdue(
    connection: &mut AsyncPgConnection,
    deadline: Deadline,
    range: DueRange,
    fact: &Fact,
) -> Result<usize, StoreError> {
    let subject = Subject::Overdue(deadline, range);
    let record = SelectKeys(RecordFact::new(subject, fact, NO_TIME, None));
    let recorded: Vec<Recorded> = record.load(connection).await?;
    Ok(recorded.len())
}

/// Merges a fact that Greenroom itself reports, as [`record`] does. Such a fact has no time of
/// LiveKit: it happens at PostgreSQL's `now()`. Returns whether a session learned the fact.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn record_own(
    connection: &mut AsyncPgConnection,
    subject: Subject<'_>,
    fact: &Fact,
) -> Result<bool, StoreError> {
    Ok(record(connection, subject, fact, NO_TIME, None).await?.is_some())
}

/// Records that a call of this process opened the room of a session, as [`record`] does. Returns
/// whether the session is still open.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn record_room_opened(
    connection: &mut AsyncPgConnection,
    OpenedRoom { key, sid, holder }: &OpenedRoom,
) -> Result<bool, StoreError> {
    let (organization, id) = (key.organization_id, key.id);
    let subject = Subject::Session { organization, id, end_user: None };
    let opened = Fact::RoomOpened { sid: sid.clone() };
    Ok(record(connection, subject, &opened, NO_TIME, *holder).await?.is_some())
}

/// Records that calls of this process opened the rooms of sessions, as [`record`] does, in one
/// statement. Returns the sessions that were written. Any other session is over, or was changed by
/// another transaction meanwhile: use [`record_room_opened`] for it.
///
/// `lock_timeout` limits each wait for a session that another transaction has locked; zero means no
/// limit.
///
/// # Errors
/// Returns [`StoreError::Timeout`] after `lock_timeout`, and another [`StoreError`] if the query fails.
/// Nothing is written then.
pub async fn record_rooms_opened(
    connection: &mut AsyncPgConnection,
    rooms: &[&OpenedRoom],
    lock_timeout: Duration,
) -> Result<HashSet<SessionKey>, StoreError> {
    let rooms = OpenedRooms::new(rooms, lock_timeout);
    // The sid of each room is in `rooms`.
    let opened = Fact::RoomOpened { sid: String::new() };
    let record = SelectKeys(RecordFact::new(Subject::Opened(&rooms), &opened, NO_TIME, None));
    let recorded: Vec<Recorded> = record.load(connection).await?;
    Ok(recorded.into_iter().map(|recorded| recorded.key).collect())
}

/// Ends an open session at a caller's request and returns it. `end_user` is that of
/// [`Caller::sees_only`](greenroom_domain::Caller::sees_only).
///
/// Returns `None` if no such session is open, or if the caller may not see it.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn end_session(
    connection: &mut AsyncPgConnection,
    organization: OrganizationId,
    id: SessionId,
    end_user: Option<&UserId>,
) -> Result<Option<Session>, StoreError> {
    let subject = Subject::Session { organization, id, end_user };
    let record = RecordFact::new(subject, &Fact::EndRequested, NO_TIME, None);
    let ended = SelectSession { record, columns: Session::as_select() };
    Ok(ended.get_result(connection).await.optional()?)
}

/// [`RecordFact`], selecting the keys of the sessions that learned the fact, and whether `holder` holds
/// their buckets.
struct SelectKeys<'a>(RecordFact<'a>);

impl QueryId for SelectKeys<'_> {
    type QueryId = ();
    // diesel finds the prepared statement by its text, which depends on the fact.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for SelectKeys<'_> {
    type SqlType = ((Uuid, Uuid), Bool);
}

impl QueryFragment<Pg> for SelectKeys<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.push_tables("sessions.organization_id, sessions.id", &mut out)?;
        out.push_sql(" select organization_id, id, is_held from sessions");
        Ok(())
    }
}

/// [`RecordFact`], selecting the whole session that learned the fact.
struct SelectSession<'a> {
    record: RecordFact<'a>,
    columns: AsSelect<Session, Pg>,
}

impl QueryId for SelectSession<'_> {
    type QueryId = ();
    // diesel finds the prepared statement by its text, which depends on the fact.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for SelectSession<'_> {
    type SqlType = SqlTypeOf<AsSelect<Session, Pg>>;
}

impl QueryFragment<Pg> for SelectSession<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.record.push_tables("sessions.*", &mut out)?;
        out.push_sql(" select ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" from sessions");
        Ok(())
    }
}
