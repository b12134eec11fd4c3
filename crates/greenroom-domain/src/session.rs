//! What a session can be: its status, its agent's, and why it is over.

use crate::text_enum::text_enum;

text_enum! {
    /// Where a session stands. The last three are for ever.
    SessionStatus {
        /// Started; no user in the room yet.
        Pending = "pending",
        /// A user has joined.
        Active = "active",
        /// Over.
        Ended = "ended",
        /// Nobody joined by `join_by`.
        Expired = "expired",
        /// It could not happen, or could not go on.
        Failed = "failed",
    }
}

impl SessionStatus {
    /// Those of a session that is not over.
    pub const LIVING: [Self; 2] = [Self::Pending, Self::Active];
}

text_enum! {
    /// Whether the agent is known to be there.
    AgentStatus {
        /// The template names no agent.
        None = "none",
        /// Named, not yet asked for.
        Waiting = "waiting",
        /// Asked for; not seen in the room yet.
        Dispatched = "dispatched",
        /// A participant of kind AGENT is in the room, state ACTIVE.
        Ready = "ready",
        /// It hung up of its own accord.
        Left = "left",
        /// It was not there by its deadline.
        Unavailable = "unavailable",
    }
}

text_enum! {
    /// Why a session is over.
    EndReason {
        /// Somebody asked for it.
        Requested = "requested",
        /// The user left and the reconnect window passed.
        UserLeft = "user_left",
        /// Somebody else closed the room, or LiveKit lost it.
        RoomClosed = "room_closed",
        /// `max_duration_seconds` passed.
        MaxDuration = "max_duration",
        /// Nobody joined by `join_by`.
        JoinWindow = "join_window",
        /// A required agent was not there by its deadline.
        AgentUnavailable = "agent_unavailable",
        /// The agent hung up, and the template says `end`.
        AgentLeft = "agent_left",
        /// The room could not be opened.
        LiveKitError = "livekit_error",
    }
}
