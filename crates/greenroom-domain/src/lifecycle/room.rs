//! The rules for the room: its creation, and the consequences of its absence.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Action, DecisionBuilder, Observation, TimelineEvent};
use crate::{EndReason, RoomCreation, SessionStatus};

/// Maximum difference between the times of a user's departure in LiveKit and in Greenroom. LiveKit
/// reports whole seconds, and reports them later.
const TIMESTAMP_TOLERANCE: TimeDelta = TimeDelta::seconds(2);

impl DecisionBuilder<'_> {
    pub(super) fn observe_room(&mut self, observation: &Observation) {
        let Some(sid) = &observation.room else { return };
        self.state.room_missing_since = None;
        self.record_room(sid);
        // The call that opened the room also dispatched the agent. Record the dispatch here if the
        // start was interrupted before it did: a webhook reports only the room. For on_join,
        // `activate` records the dispatch.
        if self.opens_on_start()
            && self.state.agent_wanted_since.is_none()
            && self.state.dispatch_with_room(self.now)
        {
            self.emit(TimelineEvent::AgentDispatched);
        }
    }

    /// Records that the room exists, if the start did not.
    pub(super) fn record_room(&mut self, sid: &str) {
        if self.state.room_created_at.is_none() {
            self.state.room_created_at = Some(self.now);
            self.emit_for(TimelineEvent::RoomCreated, sid);
        }
    }

    pub(super) fn handle_missing_room(&mut self, observation: &Observation) {
        if observation.room.is_some() {
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

    /// Opens the room again at each observation until the room exists. Each call also dispatches
    /// the agent, with a new deadline, but only the first dispatch appears in the timeline.
    fn reopen_room(&mut self) {
        let is_first = self.state.room_missing_since.is_none();
        self.state.room_missing_since.get_or_insert(self.now);
        self.state.lose_dispatch();
        let dispatches_agent = self.state.dispatch_with_room(self.now);
        self.actions.push(Action::OpenRoom { dispatches_agent });
        if dispatches_agent && is_first {
            self.emit(TimelineEvent::AgentDispatched);
        }
    }

    /// Fails the session if neither the start nor a replay opened the room in time. Runs only if the
    /// room is known to be absent: the user may be in a room of which the start failed to record the
    /// creation.
    fn fail_unopened_start(&mut self) {
        if self.state.is_start_overdue(self.session.created_at, self.now) {
            self.finish(SessionStatus::Failed, EndReason::LiveKitError);
        }
    }

    /// Ends the session at once if LiveKit reported the room as finished, otherwise after the
    /// reconnect window: after a restart of LiveKit, users rejoin and re-create the room.
    fn handle_missing_active_room(&mut self) {
        self.state.room_missing_since.get_or_insert(self.now);
        // Ignore a room_finished that is older than the user's latest join.
        let present_since = self.state.started_at.max(self.state.user_joined_at);
        let finished = self.state.room_finished_at.filter(|at| Some(*at) >= present_since);
        if let Some(at) = finished {
            self.finish(SessionStatus::Ended, self.room_end_reason(at));
        } else if self.missing_room_deadline().is_some_and(|at| self.now >= at) {
            self.finish(SessionStatus::Ended, self.room_end_reason(self.now));
        }
    }

    /// Returns the time at which an active session without a room ends.
    pub(super) fn missing_room_deadline(&self) -> Option<DateTime<Utc>> {
        let is_active = self.state.status == SessionStatus::Active;
        let missing_since = self.state.room_missing_since.filter(|_| is_active)?;
        let missing_until = missing_since + self.session.policy.reconnect_window;
        Some(self.absence_deadline().map_or(missing_until, |absent| absent.min(missing_until)))
    }

    /// Returns the time at which a user who is out of the room has been out for the whole reconnect
    /// window.
    fn absence_deadline(&self) -> Option<DateTime<Utc>> {
        let left = self.state.user_left_at.filter(|_| !self.state.is_user_present())?;
        Some(left + self.session.policy.reconnect_window - TIMESTAMP_TOLERANCE)
    }

    /// Returns `UserLeft` if the user was out for the reconnect window, otherwise `RoomClosed`.
    fn room_end_reason(&self, at: DateTime<Utc>) -> EndReason {
        if self.absence_deadline().is_some_and(|deadline| at >= deadline) {
            EndReason::UserLeft
        } else {
            EndReason::RoomClosed
        }
    }

    fn opens_on_start(&self) -> bool {
        self.state.room_creation == RoomCreation::OnStart
    }
}
