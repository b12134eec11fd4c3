//! Facts: reports about a session from webhooks, starts and callers, and how a state learns them.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Event, JOB_ASSIGNMENT_TIMEOUT, State, TimelineEvent};
use crate::{AgentStatus, EndReason, ParticipantIdentity, SessionStatus};

/// A report about a session, which [`State::learn`] merges into the state.
///
/// A `sid` is LiveKit's SID of a room or of a participant; a participant gets a new SID with each
/// join. A `reason` is LiveKit's disconnect reason, such as `CLIENT_INITIATED`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A start opened the room and dispatched the agent in the same call.
    RoomOpened { sid: String },
    /// A start failed to open the room, and no repeated request is expected to open it.
    RoomNotOpened,
    /// A caller ended the session.
    EndRequested,
    /// A webhook reported that the room exists.
    RoomStarted { sid: String },
    /// A webhook reported that the room is closed.
    RoomFinished,
    /// A webhook reported a participant who is not an agent. See [`Fact::concerns`].
    UserJoined { identity: String, sid: String },
    /// A webhook reported the departure of a participant who is not an agent.
    UserLeft { identity: String, sid: String, reason: Option<String> },
    /// A webhook reported an agent.
    AgentJoined { identity: String, sid: String },
    /// A webhook reported the departure of an agent.
    AgentLeft { identity: String, sid: String, reason: Option<String> },
}

impl Fact {
    /// Returns whether the fact is about the session whose user has this identity: other
    /// participants who are not agents do not change a session.
    #[must_use]
    pub fn concerns(&self, user: &ParticipantIdentity) -> bool {
        match self {
            Self::UserJoined { identity, .. } | Self::UserLeft { identity, .. } => {
                identity == user.as_str()
            }
            _ => true,
        }
    }

    /// Returns whether a session must be open to learn this fact. Facts from webhooks do not need
    /// an open session, because a webhook may arrive after the end.
    #[must_use]
    pub fn needs_open_session(&self) -> bool {
        matches!(self, Self::RoomOpened { .. } | Self::RoomNotOpened | Self::EndRequested)
    }

    /// Returns whether the keeper must check a session at once even if it is over, because its room
    /// is open again.
    #[must_use]
    pub fn reopens_room(&self) -> bool {
        matches!(
            self,
            Self::RoomStarted { .. } | Self::UserJoined { .. } | Self::AgentJoined { .. }
        )
    }

    /// Returns the final status and reason if the fact ends the session.
    #[must_use]
    pub fn end(&self) -> Option<(SessionStatus, EndReason)> {
        match self {
            Self::EndRequested => Some((SessionStatus::Ended, EndReason::Requested)),
            Self::RoomNotOpened => Some((SessionStatus::Failed, EndReason::LiveKitError)),
            _ => None,
        }
    }

    /// The timeline events of this fact. [`Fact::RoomOpened`] has a further event if the agent was
    /// waiting: [`TimelineEvent::AgentDispatched`].
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let with_sid = |event, sid: &String| vec![Event { event, sid: Some(sid.clone()) }];
        let without_sid = |event| Event { event, sid: None };
        match self {
            Self::RoomOpened { sid } | Self::RoomStarted { sid } => {
                with_sid(TimelineEvent::RoomCreated, sid)
            }
            Self::RoomNotOpened => vec![without_sid(TimelineEvent::Failed)],
            Self::EndRequested => {
                vec![without_sid(TimelineEvent::EndRequested), without_sid(TimelineEvent::Ended)]
            }
            Self::RoomFinished => Vec::new(),
            Self::UserJoined { sid, .. } => with_sid(TimelineEvent::UserJoined, sid),
            Self::UserLeft { sid, .. } => with_sid(TimelineEvent::UserLeft, sid),
            Self::AgentJoined { sid, .. } => with_sid(TimelineEvent::AgentJoined, sid),
            Self::AgentLeft { sid, .. } => with_sid(TimelineEvent::AgentLeft, sid),
        }
    }
}

impl Event {
    /// The id that makes the event unique in its timeline, whether a webhook reported it or an
    /// observation found it. `None` for events that have no counterpart in LiveKit.
    #[must_use]
    pub fn source_id(&self) -> Option<String> {
        self.sid.as_ref().map(|sid| self.event.source_id(sid))
    }
}

impl TimelineEvent {
    /// The id of an event of this kind about the room or the participant with this sid.
    #[must_use]
    pub fn source_id(self, sid: &str) -> String {
        format!("{self}/{sid}")
    }

    /// The sid in a [`TimelineEvent::source_id`].
    #[must_use]
    pub fn sid_of(source_id: &str) -> Option<&str> {
        source_id.split_once('/').map(|(_, sid)| sid)
    }
}

impl State {
    /// Merges a fact into the state and schedules the next check. Returns the events for the
    /// timeline. Returns `None` and changes nothing if the session is over and the fact needs an
    /// open one, or if a [`Fact::RoomNotOpened`] comes after the room was opened.
    ///
    /// Each recorded time is the earliest or the latest of its kind, so webhooks may arrive in any
    /// order and more than once. `at` is LiveKit's time of the event in whole seconds, and `now` is
    /// PostgreSQL's time. The store learns facts by the same rules in one SQL statement; a test
    /// compares the two.
    pub fn learn(
        &mut self,
        fact: &Fact,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<Vec<Event>> {
        if fact.needs_open_session() && self.is_over() {
            return None;
        }
        // Take the end of LiveKit's second, capped at `now` to tolerate clock skew.
        let at = (at + TimeDelta::milliseconds(999)).min(now);
        let mut events = fact.events();
        match fact {
            Fact::RoomOpened { .. } => {
                self.room_created_at.get_or_insert(now);
                if self.dispatch_with_room(now) {
                    events.push(Event { event: TimelineEvent::AgentDispatched, sid: None });
                }
            }
            // A replay of the start may have opened the room meanwhile.
            Fact::RoomNotOpened if self.room_created_at.is_some() => return None,
            Fact::RoomNotOpened | Fact::EndRequested => {
                let (status, reason) = fact.end()?;
                self.status = status;
                self.end_reason = Some(reason);
                self.ended_at = Some(now);
            }
            Fact::RoomStarted { .. } => {
                self.room_created_at.get_or_insert(now);
            }
            Fact::RoomFinished => self.room_finished_at = self.room_finished_at.max(Some(at)),
            Fact::UserJoined { .. } => self.user_joined_at = self.user_joined_at.max(Some(at)),
            Fact::UserLeft { .. } => self.user_left_at = self.user_left_at.max(Some(at)),
            Fact::AgentJoined { identity, .. } => self.learn_agent_joined(identity, at),
            Fact::AgentLeft { identity, reason, .. } => {
                self.learn_agent_left(identity, reason.as_deref(), at);
            }
        }
        self.next_check_at = self.next_check_after(fact, now);
        Some(events)
    }

    /// Records that the call which opened the room also dispatched the agent. Returns whether the
    /// agent was waiting for that.
    pub(super) fn dispatch_with_room(&mut self, now: DateTime<Utc>) -> bool {
        if self.agent_status == AgentStatus::None {
            return false;
        }
        self.agent_wanted_since.get_or_insert(now);
        self.last_dispatch_at.get_or_insert(now);
        let was_waiting = self.agent_status == AgentStatus::Waiting;
        if was_waiting {
            self.agent_status = AgentStatus::Dispatched;
        }
        was_waiting
    }

    /// Clears the recorded departure if the same agent joined at or after it.
    fn learn_agent_joined(&mut self, identity: &str, at: DateTime<Utc>) {
        let is_back = self.agent_left_identity.as_deref() == Some(identity);
        if is_back && self.agent_left_at.is_none_or(|left| left <= at) {
            self.agent_left_at = None;
            self.agent_left_identity = None;
            self.agent_left_reason = None;
        }
    }

    /// The three fields describe one departure, so they change together. If a departure of this
    /// agent is recorded without a reason, as observations record it, the report only adds its
    /// reason. Otherwise, a later departure replaces all three.
    fn learn_agent_left(&mut self, identity: &str, reason: Option<&str>, at: DateTime<Utc>) {
        let adds_reason = self.agent_left_reason.is_none()
            && self.agent_left_identity.as_deref() == Some(identity);
        if !adds_reason {
            if self.agent_left_at.is_some_and(|left| left >= at) {
                return;
            }
            self.agent_left_at = Some(at);
        }
        self.agent_left_identity = Some(identity.to_owned());
        self.agent_left_reason = reason.map(str::to_owned);
    }

    fn next_check_after(&self, fact: &Fact, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match fact {
            // LiveKit may assign the dispatch to a worker within `JOB_ASSIGNMENT_TIMEOUT`.
            Fact::RoomOpened { .. } => {
                let check = now + JOB_ASSIGNMENT_TIMEOUT;
                Some(self.next_check_at.map_or(check, |next| next.min(check)))
            }
            Fact::RoomNotOpened | Fact::EndRequested => Some(now),
            _ if fact.reopens_room() || !self.is_over() => Some(now),
            _ => self.next_check_at,
        }
    }
}
