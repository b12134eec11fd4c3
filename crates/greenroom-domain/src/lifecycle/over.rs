//! A session that is over: its room goes, and stays gone.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, Deciding, Observation, SOON};

/// LiveKit hands those who are connected new tokens of ten minutes.
const PUSHED_TOKENS: TimeDelta = TimeDelta::minutes(10);

/// LiveKit takes a token a minute past its end.
const LEEWAY: TimeDelta = TimeDelta::minutes(1);

impl Deciding<'_> {
    /// Deletes the room until it is seen to be gone, and looks once more when no token is left that
    /// would bring it back.
    pub(super) fn clear_away(&mut self, seen: Option<&Observation>) {
        let Some(seen) = seen else {
            self.state.next_check_at = Some(self.now + SOON);
            return;
        };
        if seen.room {
            self.state.room_gone_at = None;
            self.actions.push(Action::DeleteRoom);
            self.state.next_check_at = Some(self.now + SOON);
            return;
        }
        let gone_at = *self.state.room_gone_at.get_or_insert(self.now);
        let last_look = self.last_token(gone_at) + LEEWAY;
        self.state.next_check_at = (self.now < last_look).then_some(last_look);
    }

    /// When the last token that opens the room has run out.
    fn last_token(&self, gone_at: DateTime<Utc>) -> DateTime<Utc> {
        self.session.token_expiry.max(gone_at + PUSHED_TOKENS)
    }
}
