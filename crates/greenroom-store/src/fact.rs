//! The statement that merges a [`Fact`] into a session: the SQL form of `State::learn`.

mod sql;

use chrono::{DateTime, Utc};
use diesel::dsl::{AsSelect, SqlTypeOf};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::{OrganizationId, RoomName, SessionId, UserId};

use self::sql::RecordFact;
use crate::overdue::Deadline;
use crate::{Session, StoreError};

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
    /// At most [`MAX_OVERDUE`](crate::overdue::MAX_OVERDUE) sessions whose deadline has passed.
    Overdue(Deadline),
}

/// Merges a fact into its session, appends the timeline events and schedules the next check, in one
/// statement. The rules are those of `State::learn`.
///
/// `at` is LiveKit's time of the event, in whole seconds. A fact that Greenroom itself reports has
/// none: see [`record_own`]. Returns false if no session learned the fact: there is no such session, the fact
/// is about another participant, or `State::learn` refuses it.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn record(
    connection: &mut AsyncPgConnection,
    subject: Subject<'_>,
    fact: &Fact,
    at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let sessions: i64 =
        CountRecorded(RecordFact::new(subject, fact, at)).get_result(connection).await?;
    Ok(sessions > 0)
}

/// Merges a fact that Greenroom itself reports, as [`record`] does. Such a fact has no time of
/// LiveKit: it happens at PostgreSQL's `now()`.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn record_own(
    connection: &mut AsyncPgConnection,
    subject: Subject<'_>,
    fact: &Fact,
) -> Result<bool, StoreError> {
    record(connection, subject, fact, NO_TIME).await
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
    let record = RecordFact::new(subject, &Fact::EndRequested, NO_TIME);
    let ended = SelectRecorded { record, columns: Session::as_select() };
    Ok(ended.get_result(connection).await.optional()?)
}

/// The statement, selecting the number of sessions that learned the fact.
struct CountRecorded<'a>(RecordFact<'a>);

impl QueryId for CountRecorded<'_> {
    type QueryId = ();
    // diesel finds the prepared statement by its text, which depends on the fact.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for CountRecorded<'_> {
    type SqlType = BigInt;
}

impl QueryFragment<Pg> for CountRecorded<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.push_tables("sessions.organization_id, sessions.id", &mut out)?;
        out.push_sql(" select count(*) from sessions");
        Ok(())
    }
}

/// The statement, selecting the session that learned the fact.
struct SelectRecorded<'a> {
    record: RecordFact<'a>,
    columns: AsSelect<Session, Pg>,
}

impl QueryId for SelectRecorded<'_> {
    type QueryId = ();
    // diesel finds the prepared statement by its text, which depends on the fact.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for SelectRecorded<'_> {
    type SqlType = SqlTypeOf<AsSelect<Session, Pg>>;
}

impl QueryFragment<Pg> for SelectRecorded<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.record.push_tables("sessions.*", &mut out)?;
        out.push_sql(" select ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" from sessions");
        Ok(())
    }
}
