//! The rules for the time of the next check.

use chrono::{DateTime, TimeDelta, Utc};

use super::{DecisionBuilder, END_NOTICE, RECHECK_INTERVAL};
use crate::{AgentStatus, SessionStatus};

/// Maximum time until the next check of a session whose room is missing or cannot be deleted, and
/// until the stored check of a session that has no deadline.
pub(super) const MAX_RECHECK_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// Margin of the stored last check. It is stored when the session ends, before the time at which the
/// room is gone is known. With the margin, it need not be stored again.
pub(super) const LAST_CHECK_TOLERANCE: TimeDelta = TimeDelta::minutes(1);

impl DecisionBuilder<'_> {
    /// Sets the times of the next check: the stored one is the next fixed deadline, and the other one
    /// is the next deadline or the next interval, whichever is earlier.
    pub(super) fn schedule(&mut self, is_observed: bool) {
        let state = &self.state;
        if state.is_over() {
            // The next check observes whether the room is gone. The stored time is that of the last.
            self.state.next_check_at = Some(self.last_check(self.now) + LAST_CHECK_TOLERANCE);
            self.check_at = Some(self.now + RECHECK_INTERVAL);
            return;
        }
        let needs_recheck = !is_observed
            || !self.actions.is_empty()
            || self.has_several_agents
            || self.is_agent_rejoining
            || state.agent_status == AgentStatus::Dispatched
            || self.is_departure_unexplained();
        let next_interval = if needs_recheck {
            RECHECK_INTERVAL
        } else if state.room_missing_since.is_some() {
            recheck_interval(state.room_missing_since, self.now)
        } else {
            self.session.reconcile_interval()
        };
        let next_check = self.now + next_interval;
        let next_check = self.computed_deadline().map_or(next_check, |at| at.min(next_check));
        let deadline = self.fixed_deadline().unwrap_or(self.now + MAX_RECHECK_INTERVAL);
        self.check_by(next_check, deadline);
    }

    /// Returns the next deadline of an open session that is not stored: those of the agent, of its
    /// dispatch and of a missing room. The next holder of the bucket computes it again.
    fn computed_deadline(&self) -> Option<DateTime<Utc>> {
        self.earliest([
            self.agent_deadline(),
            self.next_dispatch_at(),
            self.missing_room_deadline(),
        ])
    }

    /// Returns the next fixed deadline of an open session: one that follows from the start or from the
    /// maximum duration. Only these are stored, so that few writes change an indexed column.
    fn fixed_deadline(&self) -> Option<DateTime<Utc>> {
        let state = &self.state;
        let is_pending = state.status == SessionStatus::Pending;
        self.earliest([
            is_pending.then_some(self.session.join_by),
            state.start_deadline(self.session.created_at),
            state.end_by.filter(|_| state.ending_notified_at.is_none()).map(|end| end - END_NOTICE),
            state.end_by,
        ])
    }

    /// Returns the earliest of these deadlines. A deadline that has passed is ignored: its rule runs
    /// at the next successful observation.
    pub(super) fn earliest<const N: usize>(
        &self,
        deadlines: [Option<DateTime<Utc>>; N],
    ) -> Option<DateTime<Utc>> {
        deadlines.into_iter().flatten().filter(|deadline| *deadline > self.now).min()
    }

    /// Sets the time of the next check, and the time by which the session must be checked even if
    /// this process forgets it. The latter is stored: it stays as it is if it is still to come and
    /// early enough, because a check without a consequence must not write.
    pub(super) fn check_by(&mut self, check_at: DateTime<Utc>, deadline: DateTime<Utc>) {
        let stored = self.session.state.next_check_at;
        let stored = stored.filter(|stored| self.now < *stored && *stored <= deadline);
        let next_check_at = stored.unwrap_or(deadline);
        self.state.next_check_at = Some(next_check_at);
        self.check_at = Some(check_at.min(next_check_at));
    }
}

/// Returns the time until the next check of something that has not succeeded since `since`: half of
/// the time that has passed, from 2 s to one minute.
pub(super) fn recheck_interval(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> TimeDelta {
    let passed = since.map_or(TimeDelta::zero(), |since| now - since);
    (passed / 2).clamp(RECHECK_INTERVAL, MAX_RECHECK_INTERVAL)
}
