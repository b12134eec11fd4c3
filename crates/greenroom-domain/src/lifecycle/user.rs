//! The rules for the user: presence, activation of the session, and its deadlines.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, DecisionBuilder, END_NOTICE, Observation, TimelineEvent};
use crate::{AgentStatus, EndReason, RoomCreation, SessionStatus};

impl DecisionBuilder<'_> {
    pub(super) fn observe_user(&mut self, observation: &Observation) {
        // The absence of the room does not mean that the user left: LiveKit may have restarted.
        if observation.room.is_some() {
            self.update_user_presence(observation);
        }
        // This includes a user who joined and left between two observations.
        if let (Some(joined), SessionStatus::Pending) =
            (self.state.user_joined_at, self.state.status)
        {
            self.activate(joined);
        }
    }

    fn update_user_presence(&mut self, observation: &Observation) {
        let user = observation.user(&self.session.participant_identity);
        match (user, self.state.is_user_present()) {
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
        // The join opened the room. LiveKit dispatched the agent with it, because the token's
        // room_config names the agent.
        let is_on_join = self.state.room_creation == RoomCreation::OnJoin;
        // An agent that is already known keeps the times of its dispatch.
        let is_waiting = self.state.agent_status == AgentStatus::Waiting;
        if is_on_join && is_waiting && self.state.dispatch_with_room(self.now) {
            self.emit(TimelineEvent::AgentDispatched);
        }
    }

    pub(super) fn enforce_deadlines(&mut self, observation: &Observation) {
        if self.state.status == SessionStatus::Pending && self.now >= self.session.join_by {
            self.finish(SessionStatus::Expired, EndReason::JoinWindow);
            return;
        }
        self.enforce_max_duration();
        if !self.state.is_over() && observation.room.is_some() {
            self.announce_end();
        }
    }

    pub(super) fn enforce_max_duration(&mut self) {
        if self.state.is_past_max_duration(self.now) {
            self.finish(SessionStatus::Ended, EndReason::MaxDuration);
        }
    }

    /// Announces the end at each observation until [`Fact::EndAnnounced`](super::Fact::EndAnnounced)
    /// reports success. Runs only if the room was observed, because LiveKit must deliver the announcement.
    fn announce_end(&mut self) {
        let due = self.state.end_by.is_some_and(|end_by| self.now >= end_by - END_NOTICE);
        if due && self.state.ending_notified_at.is_none() {
            self.actions.push(Action::AnnounceEnd);
        }
    }
}
