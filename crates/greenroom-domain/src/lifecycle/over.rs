//! A session that is over: its room goes, and stays gone.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, Deciding, Observation, SOON};

/// LiveKit hands those who are connected new tokens of ten minutes.
const PUSHED_TOKENS: TimeDelta = TimeDelta::minutes(10);

/// LiveKit takes a token a minute past its end.
const LEEWAY: TimeDelta = TimeDelta::minutes(1);

/// An agent whose job was under way when the room was deleted joins all the same, and so opens it
/// again; a cold one takes seconds.
const LATE_JOB: TimeDelta = TimeDelta::seconds(15);

impl Deciding<'_> {
    /// Deletes the room until it is seen to be gone, and looks again when an agent on its way would
    /// have brought it back, and when no token is left that would.
    pub(super) fn clear_away(&mut self, seen: Option<&Observation>) {
        let Some(seen) = seen else {
            self.state.next_check_at = Some(self.now + SOON);
            return;
        };
        if seen.room.is_some() {
            self.state.room_gone_at = None;
            self.actions.push(Action::DeleteRoom);
            self.state.next_check_at = Some(self.now + SOON);
            return;
        }
        let gone_at = *self.state.room_gone_at.get_or_insert(self.now);
        let looks = [gone_at + LATE_JOB, self.last_token(gone_at) + LEEWAY];
        self.state.next_check_at = looks.into_iter().filter(|look| self.now < *look).min();
    }

    /// When the last token that opens the room has run out.
    fn last_token(&self, gone_at: DateTime<Utc>) -> DateTime<Utc> {
        self.session.token_expiry.max(gone_at + PUSHED_TOKENS)
    }
}
