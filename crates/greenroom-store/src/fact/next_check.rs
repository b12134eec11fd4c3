//! The next check of a session that learned a fact.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{Nullable, Uuid};
use greenroom_domain::lifecycle::{Fact, JOB_ASSIGNMENT_TIMEOUT};

use super::Subject;
use super::sql::RecordFact;
use crate::bucket::HELD_BUCKETS;
use crate::sql::{OPEN, interval};

impl RecordFact<'_> {
    /// Sets the stored time. The holder of the bucket remembers the check, so the time changes only if
    /// there was none, or after the room was opened. For any other process, the session becomes due.
    pub(super) fn push_next_check<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let due = match self.fact {
            Fact::RoomDeferred | Fact::EndAnnounced => "next_check_at".to_owned(),
            Fact::RoomOpened { .. } => {
                format!("least(next_check_at, now() + {})", interval(JOB_ASSIGNMENT_TIMEOUT))
            }
            fact if fact.end().is_some() || fact.reopens_room() => "now()".to_owned(),
            _ => format!("case when {OPEN} then now() else next_check_at end"),
        };
        if !self.may_be_held() {
            out.push_sql(&due);
            return Ok(());
        }
        let kept = match self.fact {
            // The room is open, so the next fixed deadline is the end of the join window.
            Fact::RoomOpened { .. } => "case when status = 'pending' and next_check_at > now()
                   then greatest(next_check_at, join_by) else next_check_at end"
                .to_owned(),
            // The next holder does not look for a session whose room has been gone for long.
            fact if fact.reopens_room() => {
                format!("case when {OPEN} then coalesce(next_check_at, {due}) else {due} end")
            }
            _ => format!("coalesce(next_check_at, {due})"),
        };
        out.push_sql("case when ");
        self.push_is_held(out)?;
        out.push_sql(" then ");
        out.push_sql(&kept);
        out.push_sql(" else ");
        out.push_sql(&due);
        out.push_sql(" end");
        Ok(())
    }

    /// A fact that ends its session always makes it due: its caller may be gone before it can schedule
    /// a check.
    fn may_be_held(&self) -> bool {
        self.fact.end().is_none()
    }

    /// Whether the `holder` holds the bucket of the session.
    pub(super) fn push_is_held<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.may_be_held() {
            out.push_sql("false");
            return Ok(());
        }
        out.push_sql("exists (select from ");
        out.push_sql(HELD_BUCKETS);
        out.push_sql(" where bucket = session_bucket(sessions.id) and replica = ");
        match self.subject {
            Subject::Opened(_) => out.push_sql("before.holder"),
            _ => out.push_bind_param::<Nullable<Uuid>, _>(&self.holder)?,
        }
        out.push_sql(")");
        Ok(())
    }
}
