//! The lifecycle decision: what follows for a session from what is known of it and what was seen.
//!
//! Webhooks are lost, doubled and out of order, so that nothing is decided by what one of them says.
//! What was told and what was seen become facts, each the earliest or the latest of its kind, and
//! [`decide`] is a function of the facts, the latest look at LiveKit and the time. It looks at
//! nothing and does nothing itself: whoever calls it writes down the [`Decision`] first, and acts
//! then. What it decides again after a crash does no harm: rooms are opened and deleted by name,
//! and an agent is only asked for when the same look found no other on its way.

mod agent;
mod closed;
mod observation;
mod room;
mod state;
#[cfg(test)]
mod tests;
mod user;

use chrono::{DateTime, TimeDelta, Utc};

use crate::text_enum::text_enum;
use crate::{AgentStatus, EndReason, SessionStatus};
pub use observation::{Dispatch, DispatchOwner, Job, Observation, Participant, ParticipantKind};
pub use state::{AgentPolicy, Session, SessionPolicy, State};

/// How soon a session is looked at again while something is under way.
const RECHECK_INTERVAL: TimeDelta = TimeDelta::seconds(2);

/// How long before the end of the longest session its participants are told.
const END_NOTICE: TimeDelta = TimeDelta::seconds(30);

text_enum! {
    /// What stands in a session's timeline.
    TimelineEvent {
        Created = "created",
        RoomCreated = "room_created",
        AgentDispatched = "agent_dispatched",
        AgentJoined = "agent_joined",
        AgentLeft = "agent_left",
        AgentUnavailable = "agent_unavailable",
        UserJoined = "user_joined",
        UserLeft = "user_left",
        TokenRefreshed = "token_refreshed",
        EndRequested = "end_requested",
        Ended = "ended",
        Failed = "failed",
        Expired = "expired",
    }
}

/// What follows for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is known from now on; to be written before anything is done.
    pub state: State,
    pub events: Vec<Event>,
    pub actions: Vec<Action>,
}

/// Something that happened, for the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub event: TimelineEvent,
    /// The room or the participant it happened to, by LiveKit's sid, when the look showed it: told
    /// and seen, it stands in the timeline once.
    pub sid: Option<String>,
}

/// Something to do in LiveKit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the room, and ask for the agent with it.
    OpenRoom,
    /// Disconnect everybody and delete the room.
    DeleteRoom,
    /// Ask for the agent.
    Dispatch,
    /// Take back what was asked for.
    DeleteDispatch(String),
    /// Tell the participants that the session ends at `end_by`.
    AnnounceEnd,
}

/// Decides what follows for a session.
///
/// `seen` is the latest look at LiveKit; a look that failed is none, and shows nothing. `now` is
/// PostgreSQL's time, as are all times here.
#[must_use]
pub fn decide(session: &Session, seen: Option<&Observation>, now: DateTime<Utc>) -> Decision {
    let mut builder = DecisionBuilder::new(session, now);
    if session.state.is_over() {
        builder.delete_room_until_gone(seen);
        return builder.decision();
    }
    match seen {
        Some(seen) => builder.apply_observation(seen),
        None => builder.apply_without_observation(),
    }
    builder.schedule(seen.is_some());
    builder.decision()
}

/// A decision in the making.
struct DecisionBuilder<'a> {
    session: &'a Session,
    now: DateTime<Utc>,
    state: State,
    events: Vec<Event>,
    actions: Vec<Action>,
    /// More than one agent is in the room.
    has_several_agents: bool,
}

impl<'a> DecisionBuilder<'a> {
    fn new(session: &'a Session, now: DateTime<Utc>) -> Self {
        let (events, actions) = (Vec::new(), Vec::new());
        Self {
            session,
            now,
            state: session.state.clone(),
            events,
            actions,
            has_several_agents: false,
        }
    }

    /// The rules in their order: first what is there, then the times that have passed, then what is
    /// missing.
    fn apply_observation(&mut self, seen: &Observation) {
        let rules: [fn(&mut Self, &Observation); 6] = [
            Self::observe_room,
            Self::observe_user,
            Self::enforce_deadlines,
            Self::handle_missing_room,
            Self::reconcile_agent,
            Self::delete_unnamed_dispatches,
        ];
        for rule in rules {
            rule(self, seen);
            if self.state.is_over() {
                return;
            }
        }
    }

    /// Only what needs no look: the longest a session lasts, and a start that came to nothing.
    fn apply_without_observation(&mut self) {
        self.fail_unopened_start();
        if !self.state.is_over() {
            self.enforce_max_duration();
        }
    }

    /// When the session has to be looked at again: at its next deadline, and at the next look.
    fn schedule(&mut self, has_seen: bool) {
        let state = &self.state;
        if state.is_over() {
            // To see that the room is gone.
            self.state.next_check_at = Some(self.now + RECHECK_INTERVAL);
            return;
        }
        let under_way = !has_seen
            || !self.actions.is_empty()
            || self.has_several_agents
            || state.agent_status == AgentStatus::Dispatched
            || state.room_missing_since.is_some()
            || self.is_departure_unexplained();
        let look = self.now
            + if under_way { RECHECK_INTERVAL } else { self.session.policy.reconcile_every };
        let pending = state.status == SessionStatus::Pending;
        let deadlines = [
            pending.then_some(self.session.join_by),
            self.start_deadline(),
            state.end_by.filter(|_| state.ending_notified_at.is_none()).map(|end| end - END_NOTICE),
            state.end_by,
            self.agent_deadline(),
            self.next_dispatch_at(),
        ];
        // One that has passed waits for a look that succeeds, like everything else.
        let ahead = deadlines.into_iter().flatten().filter(|deadline| *deadline > self.now);
        self.state.next_check_at = Some(ahead.fold(look, DateTime::min));
    }

    fn finish(&mut self, status: SessionStatus, reason: EndReason) {
        self.state.status = status;
        self.state.end_reason = Some(reason);
        self.state.ended_at = Some(self.now);
        self.emit(match status {
            SessionStatus::Expired => TimelineEvent::Expired,
            SessionStatus::Failed => TimelineEvent::Failed,
            _ => TimelineEvent::Ended,
        });
        // Everything else that was to be done is done by this.
        self.actions = vec![Action::DeleteRoom];
    }

    fn emit(&mut self, event: TimelineEvent) {
        self.events.push(Event { event, sid: None });
    }

    fn emit_for(&mut self, event: TimelineEvent, sid: &str) {
        self.events.push(Event { event, sid: Some(sid.to_owned()) });
    }

    fn decision(self) -> Decision {
        Decision { state: self.state, events: self.events, actions: self.actions }
    }
}
