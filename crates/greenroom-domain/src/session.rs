//! The status of a session, the status of its agent, and the reasons why a session ends.

use crate::Lenient;
use crate::text_enum::text_enum;

text_enum! {
    /// The status of a session. `ended`, `expired` and `failed` are final.
    SessionStatus {
        /// The session was started, and its user has not joined yet.
        Pending = "pending",
        /// The user has joined.
        Active = "active",
        /// A caller ended the session, or the session was active and is over.
        Ended = "ended",
        /// The user did not join by `join_by`.
        Expired = "expired",
        /// The room could not be opened, or a required agent was unavailable.
        Failed = "failed",
    }
}

impl SessionStatus {
    /// The statuses of a session that is not over.
    pub const OPEN: [Self; 2] = [Self::Pending, Self::Active];
}

text_enum! {
    /// The status of a session's agent, as far as Greenroom has observed it.
    AgentStatus {
        /// The template names no agent.
        None = "none",
        /// The agent was not dispatched yet, or it was lost while the user was out of the room.
        Waiting = "waiting",
        /// The agent was requested and has not been observed in the room yet.
        Dispatched = "dispatched",
        /// The agent is in the room: a participant of kind AGENT in state ACTIVE.
        Ready = "ready",
        /// The agent hung up.
        Left = "left",
        /// The agent was not in the room by its deadline.
        Unavailable = "unavailable",
    }
}

text_enum! {
    /// The reason why a session is over.
    EndReason {
        /// A caller ended the session.
        Requested = "requested",
        /// The user left and the reconnect window passed.
        UserLeft = "user_left",
        /// Another program closed the room, or LiveKit lost it.
        RoomClosed = "room_closed",
        /// `max_duration_seconds` passed.
        MaxDuration = "max_duration",
        /// The user did not join by `join_by`.
        JoinWindow = "join_window",
        /// A required agent was not in the room by its deadline.
        AgentUnavailable = "agent_unavailable",
        /// The agent hung up, and the template's `on_agent_hangup` is `end`.
        AgentLeft = "agent_left",
        /// The room could not be opened.
        LiveKitError = "livekit_error",
    }
}

text_enum! {
    /// The condition for which a request with `wait_for` waits.
    WaitCondition {
        /// The agent is in the room. Can no longer be met if the session has no agent, or if the
        /// agent is unavailable.
        AgentReady = "agent_ready",
        /// The user has joined.
        Active = "active",
        /// The session is over, with any final status.
        Ended = "ended",
    }
}

impl WaitCondition {
    /// Returns whether the wait is over: the condition is met, or can no longer be met. A value that
    /// this version does not know also ends the wait, because its meaning is unknown.
    #[must_use]
    pub fn is_settled(
        self,
        status: Lenient<SessionStatus>,
        agent_status: Lenient<AgentStatus>,
    ) -> bool {
        let (Some(status), Some(agent_status)) = (status.known(), agent_status.known()) else {
            return true;
        };
        if !SessionStatus::OPEN.contains(&status) {
            return true;
        }
        match self {
            // `Left` is not final: the agent is requested again when its user rejoins.
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
    fn wait_settles_when_condition_is_met_or_impossible() {
        let settling_statuses = |condition: WaitCondition| {
            let mut settling = Vec::new();
            for &status in &SessionStatus::OPEN {
                for &agent in AgentStatus::ALL {
                    if condition.is_settled(status.into(), agent.into()) {
                        settling.push((status.as_str(), agent.as_str()));
                    }
                }
            }
            settling
        };
        let agents = ["none", "ready", "unavailable"];
        let expected = ["pending", "active"].map(|status| agents.map(|agent| (status, agent)));
        assert_eq!(settling_statuses(WaitCondition::AgentReady), expected.concat());
        let all: Vec<_> = AgentStatus::ALL.iter().map(|agent| ("active", agent.as_str())).collect();
        assert_eq!(settling_statuses(WaitCondition::Active), all);
        assert_eq!(settling_statuses(WaitCondition::Ended), []);
        assert!(WaitCondition::Ended.is_settled(Lenient::Unknown, AgentStatus::Ready.into()));
        for status in [SessionStatus::Ended, SessionStatus::Expired, SessionStatus::Failed] {
            for condition in WaitCondition::ALL {
                assert!(
                    condition.is_settled(status.into(), AgentStatus::Waiting.into()),
                    "{condition} {status}"
                );
            }
        }
    }
}
