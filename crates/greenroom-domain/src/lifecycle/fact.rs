//! Facts: reports about a session from webhooks, starts and callers, and how a state learns them.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Event, JOB_ASSIGNMENT_TIMEOUT, State, TimelineEvent};
use crate::{AgentStatus, EndReason, ParticipantIdentity, RoomCreation, SessionStatus};

/// A report about a session, which [`State::learn`] merges into the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A start opened the room and dispatched the agent in the same call.
    RoomOpened {
        /// LiveKit's SID of the room.
        sid: String,
    },
    /// A start opened the room of a session that was over by then. The keeper must delete the room.
    RoomOpenedLate {
        /// LiveKit's SID of the room.
        sid: String,
    },
    /// A start failed to open the room, and no repeated request is expected to open it.
    RoomNotOpened,
    /// A start failed to open the room and leaves that to the user's join.
    RoomDeferred,
    /// A caller ended the session.
    EndRequested,
    /// The maximum duration of the session is over. See [`State::is_past_max_duration`].
    MaxDurationReached,
    /// The participants were notified of the end of the session.
    EndAnnounced,
    /// A webhook reported that the room exists.
    RoomStarted {
        /// LiveKit's SID of the room.
        sid: String,
    },
    /// A webhook reported that the room is closed.
    RoomFinished,
    /// A webhook reported a participant who is not an agent. See [`Fact::concerns`].
    UserJoined {
        /// Identity with which the participant joined the room.
        identity: String,
        /// LiveKit's SID of the participant. Each join has a new SID.
        sid: String,
    },
    /// A webhook reported the departure of a participant who is not an agent.
    UserLeft {
        /// Identity with which the participant joined the room.
        identity: String,
        /// LiveKit's SID of the participant. Each join has a new SID.
        sid: String,
        /// LiveKit's disconnect reason, such as `CLIENT_INITIATED`. `None` means that the webhook
        /// has none.
        reason: Option<String>,
    },
    /// A webhook reported an agent.
    AgentJoined {
        /// Identity with which the agent joined the room.
        identity: String,
        /// LiveKit's SID of the participant. Each join has a new SID.
        sid: String,
    },
    /// A webhook reported the departure of an agent.
    AgentLeft {
        /// Identity with which the agent joined the room.
        identity: String,
        /// LiveKit's SID of the participant. Each join has a new SID.
        sid: String,
        /// LiveKit's disconnect reason, such as `CLIENT_INITIATED`. `None` means that the webhook
        /// has none.
        reason: Option<String>,
    },
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
        matches!(
            self,
            Self::RoomOpened { .. }
                | Self::RoomNotOpened
                | Self::RoomDeferred
                | Self::EndRequested
                | Self::MaxDurationReached
                | Self::EndAnnounced
        )
    }

    /// Returns whether the keeper must check a session at once even if it is over, because its room
    /// is open again.
    #[must_use]
    pub fn reopens_room(&self) -> bool {
        matches!(
            self,
            Self::RoomOpenedLate { .. }
                | Self::RoomStarted { .. }
                | Self::UserJoined { .. }
                | Self::AgentJoined { .. }
        )
    }

    /// Returns the final status and reason if the fact ends the session.
    #[must_use]
    pub fn end(&self) -> Option<(SessionStatus, EndReason)> {
        match self {
            Self::EndRequested => Some((SessionStatus::Ended, EndReason::Requested)),
            Self::RoomNotOpened => Some((SessionStatus::Failed, EndReason::LiveKitError)),
            Self::MaxDurationReached => Some((SessionStatus::Ended, EndReason::MaxDuration)),
            _ => None,
        }
    }

    /// The timeline events of this fact. [`Fact::RoomOpened`] has a further event if the agent was
    /// waiting: [`TimelineEvent::AgentDispatched`].
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let with_sid = |event, sid: &String| Some(Event { event, sid: Some(sid.clone()) });
        let without_sid = |event| Event { event, sid: None };
        let reported = match self {
            Self::RoomOpened { sid } | Self::RoomOpenedLate { sid } | Self::RoomStarted { sid } => {
                with_sid(TimelineEvent::RoomCreated, sid)
            }
            Self::EndRequested => Some(without_sid(TimelineEvent::EndRequested)),
            Self::RoomNotOpened
            | Self::RoomDeferred
            | Self::RoomFinished
            | Self::MaxDurationReached
            | Self::EndAnnounced => None,
            Self::UserJoined { sid, .. } => with_sid(TimelineEvent::UserJoined, sid),
            Self::UserLeft { sid, .. } => with_sid(TimelineEvent::UserLeft, sid),
            Self::AgentJoined { sid, .. } => with_sid(TimelineEvent::AgentJoined, sid),
            Self::AgentLeft { sid, .. } => with_sid(TimelineEvent::AgentLeft, sid),
        };
        let end = self.end().map(|(status, _)| without_sid(TimelineEvent::of_end(status)));
        reported.into_iter().chain(end).collect()
    }
}

impl Event {
    /// The id that makes the event unique in its timeline, whether a webhook reported it or an
    /// observation found it: the kind and the sid. `None` for events that have no counterpart in
    /// LiveKit.
    #[must_use]
    pub fn source_id(&self) -> Option<String> {
        self.sid.as_ref().map(|sid| format!("{}/{sid}", self.event))
    }
}

impl TimelineEvent {
    /// The event of a session's end with this final status.
    #[must_use]
    pub(super) fn of_end(status: SessionStatus) -> Self {
        match status {
            SessionStatus::Expired => Self::Expired,
            SessionStatus::Failed => Self::Failed,
            SessionStatus::Pending | SessionStatus::Active | SessionStatus::Ended => Self::Ended,
        }
    }
}

impl State {
    /// Merges a fact into the state and schedules the next check. Returns the events for the
    /// timeline, or `None`, without a change, if the session is over and the fact needs an open one.
    /// A [`Fact::RoomNotOpened`] or [`Fact::RoomDeferred`] also changes nothing after the room was
    /// opened, a [`Fact::RoomDeferred`] after the user joined, and a [`Fact::MaxDurationReached`]
    /// before the maximum duration is over.
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
            Fact::RoomNotOpened | Fact::RoomDeferred if self.room_created_at.is_some() => {
                return None;
            }
            Fact::RoomDeferred if self.status != SessionStatus::Pending => return None,
            Fact::RoomDeferred => self.room_creation = RoomCreation::OnJoin,
            Fact::MaxDurationReached if !self.is_past_max_duration(now) => return None,
            Fact::EndAnnounced => drop(self.ending_notified_at.get_or_insert(now)),
            Fact::RoomNotOpened | Fact::EndRequested | Fact::MaxDurationReached => {
                let (status, reason) = fact.end()?;
                self.end(status, reason, now);
            }
            Fact::RoomOpenedLate { .. } | Fact::RoomStarted { .. } => {
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

    /// Returns whether opening the room also dispatches the agent: the session has an agent, and
    /// the agent was not given up.
    fn is_agent_dispatched_with_room(&self) -> bool {
        !matches!(self.agent_status, AgentStatus::None | AgentStatus::Unavailable)
    }

    /// Records that the call or the token which opened the room also dispatched the agent. Returns
    /// whether the agent was waiting for that.
    pub(super) fn dispatch_with_room(&mut self, now: DateTime<Utc>) -> bool {
        if !self.is_agent_dispatched_with_room() {
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

    /// Forgets the dispatch that was lost with the room, so that the agent waits for the next one.
    pub(super) fn lose_dispatch(&mut self) {
        if self.is_agent_dispatched_with_room() {
            self.agent_status = AgentStatus::Waiting;
            self.agent_wanted_since = None;
            self.last_dispatch_at = None;
        }
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
            Fact::RoomNotOpened | Fact::EndRequested | Fact::MaxDurationReached => Some(now),
            Fact::RoomDeferred | Fact::EndAnnounced => self.next_check_at,
            _ if fact.reopens_room() || !self.is_over() => Some(now),
            _ => self.next_check_at,
        }
    }
}
