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
    pub const OPEN: [Self; 2] = [Self::Pending, Self::Active];
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

text_enum! {
    /// What somebody waits for a session to become.
    WaitCondition {
        AgentReady = "agent_ready",
        Active = "active",
        Ended = "ended",
    }
}

impl WaitCondition {
    /// Whether there is nothing left to wait for: it is so, or it can no longer become so.
    #[must_use]
    pub fn is_settled(self, status: SessionStatus, agent_status: AgentStatus) -> bool {
        let over = !SessionStatus::OPEN.contains(&status);
        over || match self {
            // One that hung up may come again, with its user.
            Self::AgentReady => matches!(
                agent_status,
                AgentStatus::Ready | AgentStatus::None | AgentStatus::Unavailable
            ),
            Self::Active => status == SessionStatus::Active,
            Self::Ended => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_it_is_so_or_never_will_be() {
        let settled = |awaited: WaitCondition| {
            let mut settled = Vec::new();
            for &status in &SessionStatus::OPEN {
                for &agent in AgentStatus::ALL {
                    if awaited.is_settled(status, agent) {
                        settled.push((status.as_str(), agent.as_str()));
                    }
                }
            }
            settled
        };
        let agents = ["none", "ready", "unavailable"];
        let either = ["pending", "active"].map(|status| agents.map(|agent| (status, agent)));
        assert_eq!(settled(WaitCondition::AgentReady), either.concat());
        let all: Vec<_> = AgentStatus::ALL.iter().map(|one| ("active", one.as_str())).collect();
        assert_eq!(settled(WaitCondition::Active), all);
        assert_eq!(settled(WaitCondition::Ended), []);
        for over in [SessionStatus::Ended, SessionStatus::Expired, SessionStatus::Failed] {
            for awaited in WaitCondition::ALL {
                assert!(awaited.is_settled(over, AgentStatus::Waiting), "{awaited} {over}");
            }
        }
    }
}
