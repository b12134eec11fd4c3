//! The rules of the user: joining makes the session active, and no session lasts for ever.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, Deciding, NOTICE, Observation, TimelineEvent};
use crate::{AgentStatus, EndReason, RoomCreation, SessionStatus};

impl Deciding<'_> {
    pub(super) fn see_user(&mut self, seen: &Observation) {
        // A room that is gone says nothing of who left it: LiveKit may only have restarted.
        if seen.room.is_some() {
            self.see_who_is_there(seen);
        }
        // Also one that came and went between two looks has joined.
        if let (Some(joined), SessionStatus::Pending) =
            (self.state.user_joined_at, self.state.status)
        {
            self.become_active(joined);
        }
    }

    fn see_who_is_there(&mut self, seen: &Observation) {
        match (seen.user(&self.session.participant_identity), self.state.is_user_there()) {
            (Some(user), false) => {
                self.state.user_joined_at = Some(self.now).max(self.state.user_left_at);
                self.tell_of(TimelineEvent::UserJoined, &user.sid);
            }
            (None, true) => {
                let after = self.state.user_joined_at.map(|at| at + TimeDelta::microseconds(1));
                self.state.user_left_at = Some(self.now).max(after);
                self.tell(TimelineEvent::UserLeft);
            }
            _ => {}
        }
    }

    fn become_active(&mut self, joined: DateTime<Utc>) {
        self.state.status = SessionStatus::Active;
        self.state.started_at = Some(joined);
        self.state.end_by = Some(joined + self.session.terms.max_duration);
        let by_token = self.session.terms.room_creation == RoomCreation::OnJoin;
        if by_token && self.state.agent_status == AgentStatus::Waiting {
            // The token's room_config asked for it, in this very join.
            self.state.agent_status = AgentStatus::Dispatched;
            self.state.agent_wanted_since = Some(self.now);
            self.state.last_dispatch_at = Some(self.now);
            self.tell(TimelineEvent::AgentDispatched);
        }
    }

    pub(super) fn keep_deadlines(&mut self, _: &Observation) {
        if self.state.status == SessionStatus::Pending && self.now >= self.session.join_by {
            self.finish(SessionStatus::Expired, EndReason::JoinWindow);
            return;
        }
        self.end_at_the_longest();
        if !self.state.is_over() {
            self.announce_the_end();
        }
    }

    pub(super) fn end_at_the_longest(&mut self) {
        let Some(end_by) = self.state.end_by else { return };
        if self.now >= end_by {
            self.finish(SessionStatus::Ended, EndReason::MaxDuration);
        }
    }

    /// Once; and only where a look shows that LiveKit is there to say it.
    fn announce_the_end(&mut self) {
        let due = self.state.end_by.is_some_and(|end_by| self.now >= end_by - NOTICE);
        if due && self.state.ending_notified_at.is_none() {
            self.state.ending_notified_at = Some(self.now);
            self.actions.push(Action::AnnounceEnd);
        }
    }
}
