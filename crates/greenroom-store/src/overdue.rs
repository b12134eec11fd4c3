//! The deadlines that need no observation of LiveKit, as SQL conditions.

use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use greenroom_domain::lifecycle::{Fact, ROOM_OPEN_DEADLINE};

use crate::sql::interval;

/// Maximum number of sessions that one statement ends because of their deadline.
pub const MAX_OVERDUE: u32 = 256;

/// SQL condition: neither the start nor a replay opened the room in time. The same rule as
/// `TrackedSession::is_start_overdue`; a test compares the two.
#[must_use]
pub fn unopened_start() -> String {
    format!(
        "(status = 'pending' and room_creation = 'on_start' and room_created_at is null
         and created_at + {} <= now())",
        interval(ROOM_OPEN_DEADLINE)
    )
}

/// Appends the CTE `overdue`: the sessions that are longest overdue by the deadline of this fact,
/// without those that another transaction is changing.
///
/// Ignores leases: an observation that takes long must not delay a deadline. Its commit then finds
/// another revision. `next_check_at` is never later than a deadline, and has an index.
pub(crate) fn push_overdue(fact: &Fact, out: &mut AstPass<'_, '_, Pg>) {
    out.push_sql(
        "overdue as materialized (
           select organization_id, id from sessions where next_check_at <= now() and ",
    );
    match fact {
        Fact::RoomNotOpened => out.push_sql(&unopened_start()),
        Fact::MaxDurationReached => out.push_sql("status = 'active' and end_by <= now()"),
        _ => out.push_sql("false"),
    }
    out.push_sql(" order by next_check_at limit ");
    out.push_sql(&MAX_OVERDUE.to_string());
    out.push_sql(" for update skip locked), ");
}
