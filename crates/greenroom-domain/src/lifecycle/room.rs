//! The rules of the room: it comes with the start, or with the user, and what its absence means.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, DecisionBuilder, Observation, TimelineEvent};
use crate::{AgentStatus, EndReason, RoomCreation, SessionStatus};

/// How long a start, or a retry of it, has to open the room.
const ROOM_OPEN_DEADLINE: TimeDelta = TimeDelta::minutes(1);

/// How far the moments may be apart that LiveKit and we call the user's leaving: it counts whole
/// seconds, and tells them later.
const TIMESTAMP_TOLERANCE: TimeDelta = TimeDelta::seconds(2);

impl DecisionBuilder<'_> {
    pub(super) fn observe_room(&mut self, seen: &Observation) {
        let Some(sid) = &seen.room else { return };
        self.state.room_missing_since = None;
        if self.state.room_created_at.is_none() {
            self.state.room_created_at = Some(self.now);
            self.emit_for(TimelineEvent::RoomCreated, sid);
        }
        // The call that opened it asked for the agent; what a token's join opens is the user's rule.
        // A start may not have come to write that down, and a webhook may have told of the room alone.
        if self.opens_on_start() && self.state.agent_wanted_since.is_none() {
            self.request_agent_with_room();
        }
    }

    /// What follows from a room that is not there.
    pub(super) fn handle_missing_room(&mut self, seen: &Observation) {
        if seen.room.is_some() {
            return;
        }
        match self.state.status {
            SessionStatus::Pending if self.opens_on_start() => {
                if self.state.room_created_at.is_some() {
                    self.reopen_room();
                } else {
                    self.fail_unopened_start();
                }
            }
            SessionStatus::Active => self.handle_missing_active_room(),
            _ => {}
        }
    }

    /// Until it is seen to be there. The agent, too, is asked for by each of these calls, and the
    /// timeline tells of the first.
    fn reopen_room(&mut self) {
        self.actions.push(Action::OpenRoom);
        self.request_agent_with_room();
        self.state.room_missing_since.get_or_insert(self.now);
    }

    /// The start, or a replay, has a minute.
    pub(super) fn fail_unopened_start(&mut self) {
        if self.start_deadline().is_some_and(|at| self.now >= at) {
            self.finish(SessionStatus::Failed, EndReason::LiveKitError);
        }
    }

    pub(super) fn start_deadline(&self) -> Option<DateTime<Utc>> {
        let opening = self.state.status == SessionStatus::Pending
            && self.opens_on_start()
            && self.state.room_created_at.is_none();
        opening.then(|| self.session.created_at + ROOM_OPEN_DEADLINE)
    }

    /// A LiveKit that restarts gets its users back, so a room that is merely gone has the reconnect
    /// window to come again. One that LiveKit says is finished has not.
    fn handle_missing_active_room(&mut self) {
        let since = *self.state.room_missing_since.get_or_insert(self.now);
        // Not one that was finished before the user was there, or came again.
        let here_since = self.state.started_at.max(self.state.user_joined_at);
        let finished = self.state.room_finished_at.filter(|at| Some(*at) >= here_since);
        if let Some(at) = finished {
            self.finish(SessionStatus::Ended, self.room_end_reason(at));
        } else if self.has_reconnect_window_passed(self.now)
            || self.now >= since + self.session.policy.reconnect_window
        {
            self.finish(SessionStatus::Ended, self.room_end_reason(self.now));
        }
    }

    /// Whether the room had waited for a user who was out, as long as it has to, by that time: then
    /// nothing else is the matter with it.
    fn has_reconnect_window_passed(&self, at: DateTime<Utc>) -> bool {
        let waited = self.session.policy.reconnect_window - TIMESTAMP_TOLERANCE;
        let left = self.state.user_left_at.filter(|_| !self.state.is_user_present());
        left.is_some_and(|left| at - left >= waited)
    }

    /// The user's leaving, when the room has waited for them as long as it had to; else somebody
    /// closed it, or LiveKit lost it.
    fn room_end_reason(&self, at: DateTime<Utc>) -> EndReason {
        if self.has_reconnect_window_passed(at) {
            EndReason::UserLeft
        } else {
            EndReason::RoomClosed
        }
    }

    fn opens_on_start(&self) -> bool {
        self.session.policy.room_creation == RoomCreation::OnStart
    }

    fn request_agent_with_room(&mut self) {
        if self.session.policy.agent.is_none()
            || self.state.agent_status == AgentStatus::Unavailable
        {
            return;
        }
        self.state.agent_status = AgentStatus::Dispatched;
        self.state.agent_wanted_since = Some(self.now);
        self.state.last_dispatch_at = Some(self.now);
        if self.state.room_missing_since.is_none() {
            self.emit(TimelineEvent::AgentDispatched);
        }
    }
}
