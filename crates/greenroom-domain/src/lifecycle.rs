//! The lifecycle decision: computes the next state of a session and the actions in LiveKit.
//!
//! Webhooks get lost, arrive twice and out of order, so no decision depends on a single webhook.
//! Webhooks, starts and callers report facts ([`Fact`]), and the state keeps the earliest or the
//! latest time of each kind. [`decide`] is a pure function of the state, the latest observation of
//! LiveKit and the time. The caller commits the [`Decision`] first and performs its actions
//! afterwards. A decision that is repeated after a crash does no harm: rooms are opened and deleted
//! by name, and an agent is dispatched only if the same observation found no pending agent.

mod agent;
mod closed;
mod fact;
mod observation;
mod room;
mod schedule;
mod state;
#[cfg(test)]
mod tests;
mod user;

use chrono::{DateTime, TimeDelta, Utc};

use crate::text_enum::text_enum;
use crate::{EndReason, SessionStatus};

pub use self::fact::Fact;
pub use self::observation::{
    Dispatch, DispatchOwner, Job, Observation, Participant, ParticipantKind,
};
pub use self::state::{
    AgentPolicy, DispatchesNeed, ROOM_OPEN_DEADLINE, SessionPolicy, State, TrackedSession,
};

/// Time after which a dispatch without a job counts as lost, because no worker accepted it. LiveKit
/// may search its nodes for a worker for five seconds before it assigns a job.
pub const JOB_ASSIGNMENT_TIMEOUT: TimeDelta = TimeDelta::seconds(6);

/// Time until the next check of a session that waits for a change: a retry without backoff, because
/// an agent's deadline can be as short as 5 s.
const RECHECK_INTERVAL: TimeDelta = TimeDelta::seconds(2);

/// Time before the maximum duration at which the participants are notified of the end.
pub const END_NOTICE: TimeDelta = TimeDelta::seconds(30);

text_enum! {
    /// The kind of an event in a session's timeline.
    TimelineEvent {
        /// The session was started.
        Created = "created",
        /// LiveKit created the room. Repeats if the room is re-created.
        RoomCreated = "room_created",
        /// LiveKit was asked for the agent. Repeats if an agent or a dispatch was lost.
        AgentDispatched = "agent_dispatched",
        /// An agent joined the room.
        AgentJoined = "agent_joined",
        /// An agent left the room.
        AgentLeft = "agent_left",
        /// The agent was not in the room by its deadline.
        AgentUnavailable = "agent_unavailable",
        /// The user joined the room.
        UserJoined = "user_joined",
        /// The user left the room.
        UserLeft = "user_left",
        /// A caller got a new join token.
        TokenRefreshed = "token_refreshed",
        /// A caller requested the end of the session.
        EndRequested = "end_requested",
        /// The session is over with [`SessionStatus::Ended`].
        Ended = "ended",
        /// The session is over with [`SessionStatus::Failed`].
        Failed = "failed",
        /// The session is over with [`SessionStatus::Expired`].
        Expired = "expired",
    }
}

/// The result of [`decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The new state. Commit it before performing the actions.
    pub state: State,
    /// New events for the timeline.
    pub events: Vec<Event>,
    /// Actions to perform in LiveKit, in this order.
    pub actions: Vec<Action>,
    /// Time of the next check, which the keeper remembers without a write. It is not later than
    /// [`State::next_check_at`]. `None` means that the session needs no further check.
    pub check_at: Option<DateTime<Utc>>,
}

/// An event for the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The kind of the event.
    pub event: TimelineEvent,
    /// LiveKit's sid of the room or the participant, if the observation contains it. A webhook for
    /// the same event has the same sid, so the timeline contains the event once.
    pub sid: Option<String>,
}

/// An action to perform in LiveKit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the room.
    OpenRoom {
        /// Whether the same call dispatches the agent.
        dispatches_agent: bool,
    },
    /// Disconnect all participants and delete the room.
    DeleteRoom,
    /// Dispatch the agent.
    Dispatch,
    /// Delete the dispatch with this id, which removes its agent from the room.
    DeleteDispatch(String),
    /// Notify the participants that the session ends at `end_by`.
    AnnounceEnd,
}

impl Action {
    /// Returns whether the action dispatches the session's agent.
    #[must_use]
    pub fn dispatches_agent(&self) -> bool {
        matches!(self, Self::Dispatch | Self::OpenRoom { dispatches_agent: true })
    }
}

/// Decides the next state of a session and the actions in LiveKit.
///
/// `observation` is the latest observation of LiveKit. `None` means that the observation failed, and
/// that the room may exist. `now` is PostgreSQL's time, so replicas with different clocks decide
/// alike.
#[must_use]
pub fn decide(
    session: &TrackedSession,
    observation: Option<&Observation>,
    now: DateTime<Utc>,
) -> Decision {
    let mut builder = DecisionBuilder::new(session, now);
    if session.state.is_over() {
        builder.delete_room_until_gone(observation);
        return builder.decision();
    }
    match observation {
        Some(observation) => builder.apply_observation(observation),
        None => builder.enforce_max_duration(),
    }
    builder.schedule(observation.is_some());
    builder.decision()
}

/// Decides about an open session whose room is listed with this sid, but could not be observed
/// further. The room exists, so the start that opened it does not fail, whatever is recorded.
#[must_use]
pub fn decide_listed(session: &TrackedSession, sid: &str, now: DateTime<Utc>) -> Decision {
    let mut builder = DecisionBuilder::new(session, now);
    builder.record_room(sid);
    builder.enforce_max_duration();
    builder.schedule(false);
    builder.decision()
}

/// Decides nothing but the time of the next check, for a session that cannot be observed now.
#[must_use]
pub fn postpone(session: &TrackedSession, now: DateTime<Utc>) -> Decision {
    let mut builder = DecisionBuilder::new(session, now);
    builder.schedule(true);
    builder.decision()
}

/// A decision while the rules are applied.
struct DecisionBuilder<'a> {
    session: &'a TrackedSession,
    now: DateTime<Utc>,
    state: State,
    events: Vec<Event>,
    actions: Vec<Action>,
    check_at: Option<DateTime<Utc>>,
    /// Whether more than one agent is in the room.
    has_several_agents: bool,
    /// Whether the session's agent is joining again.
    is_agent_rejoining: bool,
}

impl<'a> DecisionBuilder<'a> {
    fn new(session: &'a TrackedSession, now: DateTime<Utc>) -> Self {
        let (events, actions) = (Vec::new(), Vec::new());
        Self {
            session,
            now,
            state: session.state.clone(),
            events,
            actions,
            check_at: None,
            has_several_agents: false,
            is_agent_rejoining: false,
        }
    }

    /// Applies the rules in order until the session is over. Presence comes before deadlines, so
    /// that a user who is present at the deadline has joined in time.
    fn apply_observation(&mut self, observation: &Observation) {
        let rules: [fn(&mut Self, &Observation); 6] = [
            Self::observe_room,
            Self::observe_user,
            Self::enforce_deadlines,
            Self::handle_missing_room,
            Self::reconcile_agent,
            Self::delete_unnamed_dispatches,
        ];
        for rule in rules {
            rule(self, observation);
            if self.state.is_over() {
                return;
            }
        }
    }

    fn finish(&mut self, status: SessionStatus, reason: EndReason) {
        self.state.end(status, reason, self.now);
        self.emit(TimelineEvent::of_end(status));
        // Deleting the room makes the other actions unnecessary.
        self.actions = vec![Action::DeleteRoom];
    }

    fn emit(&mut self, event: TimelineEvent) {
        self.events.push(Event { event, sid: None });
    }

    fn emit_for(&mut self, event: TimelineEvent, sid: &str) {
        self.events.push(Event { event, sid: Some(sid.to_owned()) });
    }

    fn decision(self) -> Decision {
        let Self { state, events, actions, check_at, .. } = self;
        Decision { state, events, actions, check_at }
    }
}
