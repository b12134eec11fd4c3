//! The rules of the user: joining makes the session active, and no session lasts for ever.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, DecisionBuilder, END_NOTICE, Observation, TimelineEvent};
use crate::{AgentStatus, EndReason, RoomCreation, SessionStatus};

impl DecisionBuilder<'_> {
    pub(super) fn observe_user(&mut self, seen: &Observation) {
        // A room that is gone says nothing of who left it: LiveKit may only have restarted.
        if seen.room.is_some() {
            self.update_user_presence(seen);
        }
        // Also one that came and went between two looks has joined.
        if let (Some(joined), SessionStatus::Pending) =
            (self.state.user_joined_at, self.state.status)
        {
            self.activate(joined);
        }
    }

    fn update_user_presence(&mut self, seen: &Observation) {
        match (seen.user(&self.session.participant_identity), self.state.is_user_present()) {
            (Some(user), false) => {
                self.state.user_joined_at = Some(self.now).max(self.state.user_left_at);
                self.emit_for(TimelineEvent::UserJoined, &user.sid);
            }
            (None, true) => {
                let after = self.state.user_joined_at.map(|at| at + TimeDelta::microseconds(1));
                self.state.user_left_at = Some(self.now).max(after);
                self.emit(TimelineEvent::UserLeft);
            }
            _ => {}
        }
    }

    fn activate(&mut self, joined: DateTime<Utc>) {
        self.state.status = SessionStatus::Active;
        self.state.started_at = Some(joined);
        self.state.end_by = Some(joined + self.session.policy.max_duration);
        let by_token = self.session.policy.room_creation == RoomCreation::OnJoin;
        if by_token && self.state.agent_status == AgentStatus::Waiting {
            // The token's room_config asked for it, in this very join.
            self.state.agent_status = AgentStatus::Dispatched;
            self.state.agent_wanted_since = Some(self.now);
            self.state.last_dispatch_at = Some(self.now);
            self.emit(TimelineEvent::AgentDispatched);
        }
    }

    pub(super) fn enforce_deadlines(&mut self, _: &Observation) {
        if self.state.status == SessionStatus::Pending && self.now >= self.session.join_by {
            self.finish(SessionStatus::Expired, EndReason::JoinWindow);
            return;
        }
        self.enforce_max_duration();
        if !self.state.is_over() {
            self.announce_end();
        }
    }

    pub(super) fn enforce_max_duration(&mut self) {
        let Some(end_by) = self.state.end_by else { return };
        if self.now >= end_by {
            self.finish(SessionStatus::Ended, EndReason::MaxDuration);
        }
    }

    /// Once; and only where a look shows that LiveKit is there to say it.
    fn announce_end(&mut self) {
        let due = self.state.end_by.is_some_and(|end_by| self.now >= end_by - END_NOTICE);
        if due && self.state.ending_notified_at.is_none() {
            self.state.ending_notified_at = Some(self.now);
            self.actions.push(Action::AnnounceEnd);
        }
    }
}
