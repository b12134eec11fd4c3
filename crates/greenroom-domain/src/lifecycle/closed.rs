//! The rules for a session that is over: delete its room, and check that the room stays deleted.

use chrono::{DateTime, TimeDelta, Utc};

use super::schedule::{LAST_CHECK_TOLERANCE, MAX_RECHECK_INTERVAL, recheck_interval};
use super::{Action, DecisionBuilder, EndReason, Observation};

/// Lifetime of the tokens with which LiveKit refreshes those of connected participants.
const REFRESHED_TOKEN_TTL: TimeDelta = TimeDelta::minutes(10);

/// Time for which LiveKit still accepts an expired token.
const TOKEN_LEEWAY: TimeDelta = TimeDelta::minutes(1);

/// Time within which an agent may re-open the deleted room. A job that was starting when the room
/// was deleted still joins; a cold agent needs several seconds.
const LATE_JOB_WINDOW: TimeDelta = TimeDelta::seconds(15);

/// Time after a requested end in which the process that recorded it deletes the room. Two concurrent
/// deletions can make LiveKit open the room again and dispatch its agent.
const REQUESTED_DELETION: TimeDelta = TimeDelta::seconds(2);

impl DecisionBuilder<'_> {
    /// Deletes the room until an observation shows that it is gone. Checks again after
    /// [`LATE_JOB_WINDOW`], and after the expiry of the last token that could re-create the room.
    pub(super) fn delete_room_until_gone(&mut self, observation: Option<&Observation>) {
        // A room that a token opened again is new.
        let since = self.state.ended_at.filter(|_| self.state.room_gone_at.is_none());
        let next_attempt = self.now + recheck_interval(since, self.now);
        let stored = self.session.state.next_check_at.unwrap_or(self.now);
        let deadline = stored.max(self.now + MAX_RECHECK_INTERVAL);
        let Some(observation) = observation else {
            self.check_by(next_attempt, deadline);
            return;
        };
        if observation.room.is_some() {
            if let Some(over) = self.end_of_requested_deletion() {
                self.check_by(over, deadline);
                return;
            }
            self.state.room_gone_at = None;
            self.actions.push(Action::DeleteRoom);
            self.check_by(next_attempt, deadline);
            return;
        }
        let gone_at = *self.state.room_gone_at.get_or_insert(self.now);
        let last_check = self.last_check(gone_at);
        let is_last = last_check <= stored && stored <= last_check + LAST_CHECK_TOLERANCE;
        // Keep the stored time if it is late enough, so that no write is needed.
        let last_check = if is_last { stored } else { last_check };
        match self.earliest([Some(gone_at + LATE_JOB_WINDOW), Some(last_check)]) {
            Some(next) => self.check_by(next, last_check),
            None => self.state.next_check_at = None,
        }
    }

    /// Returns when the process that recorded a requested end has deleted the room. `None` means
    /// that this time is over, or that the end was not requested.
    fn end_of_requested_deletion(&self) -> Option<DateTime<Utc>> {
        let is_requested = self.state.end_reason == Some(EndReason::Requested);
        let over = self.state.ended_at.filter(|_| is_requested)? + REQUESTED_DELETION;
        (self.now < over).then_some(over)
    }

    /// Returns the time of the last check of a room that was gone at this time: the expiry of the
    /// last token that could re-create it.
    pub(super) fn last_check(&self, gone_at: DateTime<Utc>) -> DateTime<Utc> {
        self.session.token_expiry.max(gone_at + REFRESHED_TOKEN_TTL) + TOKEN_LEEWAY
    }
}
