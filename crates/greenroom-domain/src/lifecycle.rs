//! The lifecycle decision: what follows for a session from what is known of it and what was seen.
//!
//! Webhooks are lost, doubled and out of order, so that nothing is decided by what one of them says.
//! What was told and what was seen become facts, each the earliest or the latest of its kind, and
//! [`decide`] is a function of the facts, the latest look at LiveKit and the time. It looks at
//! nothing and does nothing itself: whoever calls it writes down the [`Decision`] first, and acts
//! then. What it decides again after a crash does no harm: rooms are opened and deleted by name,
//! and an agent is only asked for when the same look found no other on its way.

mod agent;
mod known;
mod over;
mod room;
mod seen;
#[cfg(test)]
mod tests;
mod user;

use chrono::{DateTime, TimeDelta, Utc};

use crate::text_enum::text_enum;
use crate::{AgentStatus, EndReason, SessionStatus};
pub use known::{AgentTerms, Session, State, Terms};
pub use seen::{Dispatch, Job, Observation, Participant, ParticipantKind, Whose};

/// How soon a session is looked at again while something is under way.
const SOON: TimeDelta = TimeDelta::seconds(2);

/// How long before the end of the longest session its participants are told.
const NOTICE: TimeDelta = TimeDelta::seconds(30);

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
    let mut deciding = Deciding::new(session, now);
    if session.state.is_over() {
        deciding.clear_away(seen);
        return deciding.decision();
    }
    match seen {
        Some(seen) => deciding.by(seen),
        None => deciding.without_a_look(),
    }
    deciding.schedule(seen.is_some());
    deciding.decision()
}

/// A decision in the making.
struct Deciding<'a> {
    session: &'a Session,
    now: DateTime<Utc>,
    state: State,
    events: Vec<Event>,
    actions: Vec<Action>,
    /// More than one agent is in the room.
    is_crowded: bool,
}

impl<'a> Deciding<'a> {
    fn new(session: &'a Session, now: DateTime<Utc>) -> Self {
        let (events, actions) = (Vec::new(), Vec::new());
        Self { session, now, state: session.state.clone(), events, actions, is_crowded: false }
    }

    /// The rules in their order: first what is there, then the times that have passed, then what is
    /// missing.
    fn by(&mut self, seen: &Observation) {
        let rules: [fn(&mut Self, &Observation); 6] = [
            Self::see_room,
            Self::see_user,
            Self::keep_deadlines,
            Self::miss_room,
            Self::keep_agent,
            Self::keep_strangers_out,
        ];
        for rule in rules {
            rule(self, seen);
            if self.state.is_over() {
                return;
            }
        }
    }

    /// Only what needs no look: the longest a session lasts, and a start that came to nothing.
    fn without_a_look(&mut self) {
        self.fail_a_start_that_came_to_nothing();
        if !self.state.is_over() {
            self.end_at_the_longest();
        }
    }

    /// When the session has to be looked at again: at its next deadline, and at the next look.
    fn schedule(&mut self, has_seen: bool) {
        let state = &self.state;
        if state.is_over() {
            // To see that the room is gone.
            self.state.next_check_at = Some(self.now + SOON);
            return;
        }
        let under_way = !has_seen
            || !self.actions.is_empty()
            || self.is_crowded
            || state.agent_status == AgentStatus::Dispatched
            || state.room_missing_since.is_some()
            || self.is_agent_gone_unexplained();
        let look = self.now + if under_way { SOON } else { self.session.terms.reconcile_every };
        let pending = state.status == SessionStatus::Pending;
        let deadlines = [
            pending.then_some(self.session.join_by),
            self.start_is_given_up_at(),
            state.end_by.filter(|_| state.ending_notified_at.is_none()).map(|end| end - NOTICE),
            state.end_by,
            self.agent_deadline(),
            self.agent_is_asked_again_at(),
        ];
        // One that has passed waits for a look that succeeds, like everything else.
        let ahead = deadlines.into_iter().flatten().filter(|deadline| *deadline > self.now);
        self.state.next_check_at = Some(ahead.fold(look, DateTime::min));
    }

    fn finish(&mut self, status: SessionStatus, reason: EndReason) {
        self.state.status = status;
        self.state.end_reason = Some(reason);
        self.state.ended_at = Some(self.now);
        self.tell(match status {
            SessionStatus::Expired => TimelineEvent::Expired,
            SessionStatus::Failed => TimelineEvent::Failed,
            _ => TimelineEvent::Ended,
        });
        // Everything else that was to be done is done by this.
        self.actions = vec![Action::DeleteRoom];
    }

    fn tell(&mut self, event: TimelineEvent) {
        self.events.push(Event { event, sid: None });
    }

    fn tell_of(&mut self, event: TimelineEvent, sid: &str) {
        self.events.push(Event { event, sid: Some(sid.to_owned()) });
    }

    fn decision(self) -> Decision {
        Decision { state: self.state, events: self.events, actions: self.actions }
    }
}
