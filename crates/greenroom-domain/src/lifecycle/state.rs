//! The input of a decision: the policy of a session, and its state.

use chrono::{DateTime, TimeDelta, Utc};

use super::{END_NOTICE, Participant, ParticipantKind};
use crate::idempotency::KEY_LIFETIME;
use crate::{
    AgentStatus, EndReason, OnAgentHangup, ParticipantIdentity, RoomCreation, SessionId,
    SessionStatus,
};

/// Time that a start and its retries have to open the room.
pub const ROOM_OPEN_DEADLINE: TimeDelta = TimeDelta::minutes(1);

/// The part of a session on which its lifecycle depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedSession {
    /// The id of the session, of which the random part spreads the checks of many sessions.
    pub id: SessionId,
    /// The settings that the session got at its start.
    pub policy: SessionPolicy,
    /// The identity with which the user joins the room.
    pub participant_identity: ParticipantIdentity,
    /// Time of the start. The lifetime of the idempotency key and the deadline for opening the room
    /// count from it.
    pub created_at: DateTime<Utc>,
    /// Time by which the user must have joined.
    pub join_by: DateTime<Utc>,
    /// Latest expiry of the session's join tokens.
    pub token_expiry: DateTime<Utc>,
    /// The state after the latest decision and the facts since then.
    pub state: State,
}

/// The settings of a session. They do not change after the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPolicy {
    /// `None` means that the session has no agent.
    pub agent: Option<AgentPolicy>,
    /// Time that the room waits for a user who left.
    pub reconnect_window: TimeDelta,
    /// Maximum duration of the session, counted from the user's join.
    pub max_duration: TimeDelta,
    /// Mean interval between two checks of a session that waits for no change.
    pub reconcile_every: TimeDelta,
}

/// The settings of a session's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentPolicy {
    /// Time that the agent has to join after it was requested.
    pub deadline: TimeDelta,
    /// Whether the session fails if the agent is unavailable.
    pub required: bool,
    /// The effect of a hang-up while the user is in the room.
    pub on_hangup: OnAgentHangup,
}

/// The state of a session. Each time of a fact is the earliest or the latest of its kind, so the
/// order and the number of the reports do not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "diesel", derive(diesel::Queryable))]
pub struct State {
    /// The status, which is final once the session is over.
    pub status: SessionStatus,
    /// The agent's status, as far as Greenroom has observed it.
    pub agent_status: AgentStatus,
    /// The template's value, or `on_join` after [`Fact::RoomDeferred`](super::Fact::RoomDeferred).
    pub room_creation: RoomCreation,
    /// The reason of the end. `None` means that the session is not over.
    pub end_reason: Option<EndReason>,
    /// Time of the user's join that made the session active. `None` means that no join has been
    /// processed.
    pub started_at: Option<DateTime<Utc>>,
    /// Time at which Greenroom ended the session. `None` means that the session is not over.
    pub ended_at: Option<DateTime<Utc>>,
    /// Time at which the maximum duration is over. Set when the session becomes active.
    pub end_by: Option<DateTime<Utc>>,

    /// Earliest time at which the room was known to exist.
    pub room_created_at: Option<DateTime<Utc>>,
    /// Time since which observations have found no room, in a session that is not over.
    pub room_missing_since: Option<DateTime<Utc>>,
    /// Latest `room_finished` webhook.
    pub room_finished_at: Option<DateTime<Utc>>,
    /// Time since which observations have found no room, in a session that is over.
    pub room_gone_at: Option<DateTime<Utc>>,
    /// Latest join of the user.
    pub user_joined_at: Option<DateTime<Utc>>,
    /// Latest departure of the user.
    pub user_left_at: Option<DateTime<Utc>>,
    /// Time of the latest request for the agent, from which its deadline counts.
    pub agent_wanted_since: Option<DateTime<Utc>>,
    /// Latest dispatch of the agent. `None` means that a requested agent was not dispatched yet.
    pub last_dispatch_at: Option<DateTime<Utc>>,
    /// Identity of the agent that was last observed in the room.
    pub agent_identity: Option<String>,
    /// Latest departure of an agent. The next two fields describe the same departure.
    pub agent_left_at: Option<DateTime<Utc>>,
    /// LiveKit's disconnect reason. `None` means that no webhook has reported the departure.
    pub agent_left_reason: Option<String>,
    /// Identity of the agent that departed. `None` means that no departure is recorded.
    pub agent_left_identity: Option<String>,
    /// Time at which the participants were notified of the end of the session.
    pub ending_notified_at: Option<DateTime<Utc>>,

    /// Time by which the session must be checked even if no process remembers it: its next fixed
    /// deadline, or the time of a fact that another process recorded. `None` means that the session
    /// needs no further check.
    pub next_check_at: Option<DateTime<Utc>>,
}

impl TrackedSession {
    /// Returns whether the session may get another join token: the session is pending before
    /// `join_by` or after its user joined, or active before `end_by`. A session without time left gets none, even if the
    /// keeper has not ended it yet, as while LiveKit is down.
    ///
    /// The store has the same rule in SQL (`idempotency::HAS_TIME_LEFT`); a test compares the two.
    #[must_use]
    pub fn has_time_left(&self, now: DateTime<Utc>) -> bool {
        match self.state.status {
            SessionStatus::Pending => self.join_by > now || self.state.user_joined_at.is_some(),
            SessionStatus::Active => self.state.end_by.is_some_and(|end_by| end_by > now),
            _ => false,
        }
    }

    /// Returns whether the user may resume the session: the session has time left, is not older
    /// than [`KEY_LIFETIME`], and the user has not joined yet or is out of the room.
    ///
    /// The store has the same rule in SQL (`idempotency::resumable`); a test compares the two.
    #[must_use]
    pub fn is_resumable(&self, now: DateTime<Utc>) -> bool {
        let state = &self.state;
        let waits_for_user = state.status == SessionStatus::Pending
            || state.user_joined_at.is_some() && !state.is_user_present();
        self.created_at > now - KEY_LIFETIME && self.has_time_left(now) && waits_for_user
    }

    /// Returns whether the session waits for no change, so that its webhooks suffice while calls to
    /// LiveKit are scarce: no deadline is due, no agent is on its way, and nothing is missing.
    #[must_use]
    pub fn is_idle(&self, now: DateTime<Utc>) -> bool {
        let state = &self.state;
        let has_agent_left = state.agent_status == AgentStatus::Ready
            && state.agent_left_identity == state.agent_identity;
        if state.room_missing_since.is_some() || state.room_finished_at.is_some() || has_agent_left
        {
            return false;
        }
        match state.status {
            SessionStatus::Pending => {
                let has_room =
                    state.room_created_at.is_some() || state.room_creation == RoomCreation::OnJoin;
                self.join_by > now
                    && state.user_joined_at.is_none()
                    && state.agent_status != AgentStatus::Dispatched
                    && has_room
            }
            SessionStatus::Active => {
                let settled = [AgentStatus::None, AgentStatus::Unavailable, AgentStatus::Ready];
                state.end_by.is_some_and(|end_by| end_by > now + END_NOTICE)
                    && settled.contains(&state.agent_status)
            }
            _ => false,
        }
    }
}

/// How urgently a decision needs the dispatches of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DispatchesNeed {
    /// The decision depends on them.
    Required,
    /// They only show whether the room's node is gone, or whether a dispatch must be deleted before
    /// a worker accepts it.
    Occasional,
    /// No rule uses them.
    None,
}

impl TrackedSession {
    /// Returns how urgently a decision needs the dispatches of the room with these participants.
    #[must_use]
    pub fn dispatches_need(&self, participants: &[Participant]) -> DispatchesNeed {
        let mut agents = participants
            .iter()
            .filter(|participant| participant.kind == ParticipantKind::Agent)
            .map(|agent| agent.identity.as_str());
        let (agent, has_several) = (agents.next(), agents.next().is_some());
        let state = &self.state;
        let is_as_expected = match state.agent_status {
            AgentStatus::None | AgentStatus::Unavailable => agent.is_none(),
            AgentStatus::Ready => {
                agent.is_some()
                    && !has_several
                    && agent == state.agent_identity.as_deref()
                    && agent != state.agent_left_identity.as_deref()
            }
            AgentStatus::Waiting | AgentStatus::Left => {
                agent.is_none()
                    && !(state.is_user_present() && state.user_joined_at > state.agent_left_at)
            }
            AgentStatus::Dispatched => false,
        };
        if self.policy.agent.is_none() && state.status != SessionStatus::Active {
            DispatchesNeed::None
        } else if is_as_expected || state.room_missing_since.is_some() {
            DispatchesNeed::Occasional
        } else {
            DispatchesNeed::Required
        }
    }

    /// Returns the interval to the next check of a session that waits for no change: between 80 %
    /// and 120 % of [`SessionPolicy::reconcile_every`], depending on the id. Sessions that were
    /// checked at the same time, as after an outage, are therefore not checked at the same time
    /// again.
    pub(super) fn reconcile_interval(&self) -> TimeDelta {
        let [.., low] = self.id.0.into_bytes();
        self.policy.reconcile_every * (80 * 256 + 40 * i32::from(low)) / (100 * 256)
    }
}

impl State {
    /// Returns the time until which a start and its retries may open the room. `None` if the room
    /// is open or left to the user's join, or if the session is no longer pending.
    pub(super) fn start_deadline(&self, created_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let is_unopened = self.status == SessionStatus::Pending
            && self.room_creation == RoomCreation::OnStart
            && self.room_created_at.is_none()
            && self.user_joined_at.is_none();
        is_unopened.then(|| created_at + ROOM_OPEN_DEADLINE)
    }

    /// Returns whether neither the start nor a replay opened the room in time.
    ///
    /// The store has the same rule in SQL (`overdue::unopened_start`); a test compares the two.
    #[must_use]
    pub fn is_start_overdue(&self, created_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.start_deadline(created_at).is_some_and(|deadline| now >= deadline)
    }

    /// Returns whether the maximum duration of the session is over.
    #[must_use]
    pub fn is_past_max_duration(&self, now: DateTime<Utc>) -> bool {
        self.end_by.is_some_and(|end_by| now >= end_by)
    }

    /// Returns whether the session is over. This is final.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !SessionStatus::OPEN.contains(&self.status)
    }

    /// Ends the session with this final status. The timeline event of the end is
    /// `TimelineEvent::of_end`.
    pub(super) fn end(&mut self, status: SessionStatus, reason: EndReason, now: DateTime<Utc>) {
        self.status = status;
        self.end_reason = Some(reason);
        self.ended_at = Some(now);
    }

    /// Returns whether the user is in the room, as far as is known. If join and departure have the
    /// same time, the join counts, and the next observation corrects it.
    #[must_use]
    pub fn is_user_present(&self) -> bool {
        self.user_joined_at.is_some() && self.user_joined_at >= self.user_left_at
    }

    /// Returns whether the user was in the room at `at`.
    pub(super) fn was_user_present(&self, at: DateTime<Utc>) -> bool {
        let joined = self.user_joined_at.is_some_and(|joined| joined <= at);
        joined && (self.is_user_present() || self.user_left_at.is_some_and(|left| left > at))
    }
}
