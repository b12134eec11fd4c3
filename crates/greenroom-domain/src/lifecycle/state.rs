//! What is known of a session: the terms it was started on, and the facts so far.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    AgentStatus, EndReason, OnAgentHangup, ParticipantIdentity, RoomCreation, SessionStatus,
};

/// A session, as far as its lifecycle is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub policy: SessionPolicy,
    /// Of the user.
    pub participant_identity: ParticipantIdentity,
    pub created_at: DateTime<Utc>,
    /// Until when somebody must have joined.
    pub join_by: DateTime<Utc>,
    /// The latest of the tokens handed out.
    pub token_expiry: DateTime<Utc>,
    pub state: State,
}

/// What the session was started on; it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPolicy {
    pub room_creation: RoomCreation,
    /// None where the template names no agent.
    pub agent: Option<AgentPolicy>,
    /// How long the room waits for a user who dropped out.
    pub reconnect_window: TimeDelta,
    /// The longest the session lasts, counted from the user's joining.
    pub max_duration: TimeDelta,
    /// How often a session with nothing under way is held against what LiveKit shows.
    pub reconcile_every: TimeDelta,
}

/// What was agreed of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentPolicy {
    /// How long it has to come.
    pub deadline: TimeDelta,
    /// Whether the session fails without it.
    pub required: bool,
    pub on_hangup: OnAgentHangup,
}

/// What changes over a session's life. The times of facts are each the earliest or the latest of
/// their kind, so that it does not matter in which order, or how often, they became known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "diesel", derive(diesel::Queryable))]
pub struct State {
    pub status: SessionStatus,
    pub agent_status: AgentStatus,
    pub end_reason: Option<EndReason>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    /// When the longest session ends; set when it becomes active.
    pub end_by: Option<DateTime<Utc>>,

    /// The earliest.
    pub room_created_at: Option<DateTime<Utc>>,
    /// Since when looks have shown no room of an active session.
    pub room_missing_since: Option<DateTime<Utc>>,
    /// The latest that was told.
    pub room_finished_at: Option<DateTime<Utc>>,
    /// Since when looks have shown no room of a session that is over.
    pub room_gone_at: Option<DateTime<Utc>>,
    /// The latest.
    pub user_joined_at: Option<DateTime<Utc>>,
    /// The latest.
    pub user_left_at: Option<DateTime<Utc>>,
    /// From when the agent's deadline counts.
    pub agent_wanted_since: Option<DateTime<Utc>>,
    /// The latest; none when it has to be asked for at the next look.
    pub last_dispatch_at: Option<DateTime<Utc>>,
    /// Of the agent last seen in the room.
    pub agent_identity: Option<String>,
    /// These three tell of one leaving, the latest.
    pub agent_left_at: Option<DateTime<Utc>>,
    /// In LiveKit's word; none when nobody has told.
    pub agent_left_reason: Option<String>,
    pub agent_left_identity: Option<String>,
    /// When the participants were told that the session ends.
    pub ending_notified_at: Option<DateTime<Utc>>,

    /// None: nothing is left to see.
    pub next_check_at: Option<DateTime<Utc>>,
}

impl State {
    /// Whether the session is over, for ever.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !SessionStatus::OPEN.contains(&self.status)
    }

    /// Whether the user is in the room, as far as is known: of two moments at once the joining
    /// counts, and the next look decides.
    #[must_use]
    pub fn is_user_present(&self) -> bool {
        self.user_joined_at.is_some() && self.user_joined_at >= self.user_left_at
    }

    /// Whether the user was in the room at that time.
    pub(super) fn was_user_present(&self, at: DateTime<Utc>) -> bool {
        let joined = self.user_joined_at.is_some_and(|joined| joined <= at);
        joined && (self.is_user_present() || self.user_left_at.is_some_and(|left| left > at))
    }
}
