//! The rules of the room: it comes with the start, or with the user, and what its absence means.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, Deciding, Observation, TimelineEvent};
use crate::{AgentStatus, EndReason, RoomCreation, SessionStatus};

/// How long a start, or a retry of it, has to open the room.
const TO_OPEN: TimeDelta = TimeDelta::minutes(1);

/// How far the moments may be apart that LiveKit and we call the user's leaving: it counts whole
/// seconds, and tells them later.
const TOLERANCE: TimeDelta = TimeDelta::seconds(2);

impl Deciding<'_> {
    pub(super) fn see_room(&mut self, seen: &Observation) {
        let Some(sid) = &seen.room else { return };
        self.state.room_missing_since = None;
        if self.state.room_created_at.is_none() {
            self.state.room_created_at = Some(self.now);
            self.tell_of(TimelineEvent::RoomCreated, sid);
        }
        // The call that opened it asked for the agent; what a token's join opens is the user's rule.
        // A start may not have come to write that down, and a webhook may have told of the room alone.
        if self.opens_on_start() && self.state.agent_wanted_since.is_none() {
            self.ask_for_agent_with_room();
        }
    }

    /// What follows from a room that is not there.
    pub(super) fn miss_room(&mut self, seen: &Observation) {
        if seen.room.is_some() {
            return;
        }
        match self.state.status {
            SessionStatus::Pending if self.opens_on_start() => {
                if self.state.room_created_at.is_some() {
                    self.open_room_again();
                } else {
                    self.fail_a_start_that_came_to_nothing();
                }
            }
            SessionStatus::Active => self.miss_active_room(),
            _ => {}
        }
    }

    /// Until it is seen to be there. The agent, too, is asked for by each of these calls, and the
    /// timeline tells of the first.
    fn open_room_again(&mut self) {
        self.actions.push(Action::OpenRoom);
        self.ask_for_agent_with_room();
        self.state.room_missing_since.get_or_insert(self.now);
    }

    /// The start, or a replay, has a minute.
    pub(super) fn fail_a_start_that_came_to_nothing(&mut self) {
        if self.start_is_given_up_at().is_some_and(|at| self.now >= at) {
            self.finish(SessionStatus::Failed, EndReason::LiveKitError);
        }
    }

    pub(super) fn start_is_given_up_at(&self) -> Option<DateTime<Utc>> {
        let opening = self.state.status == SessionStatus::Pending
            && self.opens_on_start()
            && self.state.room_created_at.is_none();
        opening.then(|| self.session.created_at + TO_OPEN)
    }

    /// A LiveKit that restarts gets its users back, so a room that is merely gone has the reconnect
    /// window to come again. One that LiveKit says is finished has not.
    fn miss_active_room(&mut self) {
        let since = *self.state.room_missing_since.get_or_insert(self.now);
        // Not one that was finished before the user was there, or came again.
        let here_since = self.state.started_at.max(self.state.user_joined_at);
        let finished = self.state.room_finished_at.filter(|at| Some(*at) >= here_since);
        if let Some(at) = finished {
            self.finish(SessionStatus::Ended, self.why_the_room_went(at));
        } else if self.has_waited_for_user(self.now)
            || self.now >= since + self.session.terms.reconnect_window
        {
            self.finish(SessionStatus::Ended, self.why_the_room_went(self.now));
        }
    }

    /// Whether the room had waited for a user who was out, as long as it has to, by that time: then
    /// nothing else is the matter with it.
    fn has_waited_for_user(&self, at: DateTime<Utc>) -> bool {
        let waited = self.session.terms.reconnect_window - TOLERANCE;
        let left = self.state.user_left_at.filter(|_| !self.state.is_user_there());
        left.is_some_and(|left| at - left >= waited)
    }

    /// The user's leaving, when the room has waited for them as long as it had to; else somebody
    /// closed it, or LiveKit lost it.
    fn why_the_room_went(&self, at: DateTime<Utc>) -> EndReason {
        if self.has_waited_for_user(at) { EndReason::UserLeft } else { EndReason::RoomClosed }
    }

    fn opens_on_start(&self) -> bool {
        self.session.terms.room_creation == RoomCreation::OnStart
    }

    fn ask_for_agent_with_room(&mut self) {
        if self.session.terms.agent.is_none() || self.state.agent_status == AgentStatus::Unavailable
        {
            return;
        }
        self.state.agent_status = AgentStatus::Dispatched;
        self.state.agent_wanted_since = Some(self.now);
        self.state.last_dispatch_at = Some(self.now);
        if self.state.room_missing_since.is_none() {
            self.tell(TimelineEvent::AgentDispatched);
        }
    }
}
