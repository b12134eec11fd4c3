//! A session that is over: its room goes, and stays gone.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, DecisionBuilder, Observation, RECHECK_INTERVAL};

/// LiveKit hands those who are connected new tokens of ten minutes.
const REFRESHED_TOKEN_TTL: TimeDelta = TimeDelta::minutes(10);

/// LiveKit takes a token a minute past its end.
const TOKEN_LEEWAY: TimeDelta = TimeDelta::minutes(1);

/// An agent whose job was under way when the room was deleted joins all the same, and so opens it
/// again; a cold one takes seconds.
const LATE_JOB_WINDOW: TimeDelta = TimeDelta::seconds(15);

impl DecisionBuilder<'_> {
    /// Deletes the room until it is seen to be gone, and looks again when an agent on its way would
    /// have brought it back, and when no token is left that would.
    pub(super) fn delete_room_until_gone(&mut self, seen: Option<&Observation>) {
        let Some(seen) = seen else {
            self.state.next_check_at = Some(self.now + RECHECK_INTERVAL);
            return;
        };
        if seen.room.is_some() {
            self.state.room_gone_at = None;
            self.actions.push(Action::DeleteRoom);
            self.state.next_check_at = Some(self.now + RECHECK_INTERVAL);
            return;
        }
        let gone_at = *self.state.room_gone_at.get_or_insert(self.now);
        let looks = [gone_at + LATE_JOB_WINDOW, self.last_token_expiry(gone_at) + TOKEN_LEEWAY];
        self.state.next_check_at = looks.into_iter().filter(|look| self.now < *look).min();
    }

    /// When the last token that opens the room has run out.
    fn last_token_expiry(&self, gone_at: DateTime<Utc>) -> DateTime<Utc> {
        self.session.token_expiry.max(gone_at + REFRESHED_TOKEN_TTL)
    }
}
