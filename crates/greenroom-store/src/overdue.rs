//! The deadlines that need no observation of LiveKit.

use chrono::TimeDelta;
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel_async::AsyncPgConnection;
use greenroom_domain::lifecycle::{Fact, ROOM_OPEN_DEADLINE};

use crate::fact::record_overdue;
use crate::sql::interval;
use crate::{DueRange, StoreError};

/// Maximum number of sessions that one statement ends because of their deadline.
pub const MAX_OVERDUE: usize = 256;

/// A search of [`DueRange::Recent`] finds the overdue sessions whose `next_check_at` is at most this old.
/// This is longer than for checks: if a check is late, `next_check_at` is already old when the deadline
/// passes.
const RECENTLY_DUE: TimeDelta = TimeDelta::minutes(1);

/// SQL condition: the maximum duration is over. The same rule as `State::is_past_max_duration`.
pub(crate) const PAST_MAX_DURATION: &str = "end_by <= now()";

/// A deadline that needs no observation of LiveKit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// The maximum duration of an active session.
    MaxDuration,
    /// The time in which a start and its replays must open the room.
    RoomOpening,
}

impl Deadline {
    fn fact(self) -> Fact {
        match self {
            Self::MaxDuration => Fact::MaxDurationReached,
            Self::RoomOpening => Fact::RoomNotOpened,
        }
    }

    fn condition(self) -> String {
        match self {
            Self::MaxDuration => format!("status = 'active' and {PAST_MAX_DURATION}"),
            Self::RoomOpening => unopened_start(),
        }
    }
}

/// Ends up to [`MAX_OVERDUE`] sessions whose deadline has passed. Returns their number.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn end_overdue(
    connection: &mut AsyncPgConnection,
    deadline: Deadline,
    range: DueRange,
) -> Result<usize, StoreError> {
    record_overdue(connection, deadline, range, &deadline.fact()).await
}

/// SQL condition: neither the start nor a replay opened the room in time. The same rule as
/// `State::is_start_overdue`; a test compares the two.
#[must_use]
pub fn unopened_start() -> String {
    format!(
        "(status = 'pending' and room_creation = 'on_start' and room_created_at is null
         and user_joined_at is null and created_at <= now() - {})",
        interval(ROOM_OPEN_DEADLINE)
    )
}

/// Appends the CTE `overdue`: the sessions that are longest overdue, without those that another
/// transaction is changing.
///
/// Ignores leases: an observation that takes long must not delay a deadline. Its commit then finds
/// another revision. `next_check_at` is never later than a deadline, and has an index.
pub(crate) fn push_overdue(deadline: Deadline, range: DueRange, out: &mut AstPass<'_, '_, Pg>) {
    out.push_sql(
        "overdue as materialized (
           select organization_id, id from sessions where ",
    );
    out.push_sql(&range.condition("now()", RECENTLY_DUE));
    out.push_sql(" and ");
    out.push_sql(&deadline.condition());
    out.push_sql(" order by next_check_at limit ");
    out.push_sql(&MAX_OVERDUE.to_string());
    out.push_sql(" for update skip locked), ");
}
