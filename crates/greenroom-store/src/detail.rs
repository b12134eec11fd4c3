//! The `detail` of each timeline event.

use chrono::{DateTime, SecondsFormat, Utc};
use greenroom_domain::EndReason;
use greenroom_domain::lifecycle::{Fact, State, TimelineEvent};
use serde_json::{Value, json};

/// The `detail` of an event that a fact reports. `at` is LiveKit's time of the fact.
pub(crate) fn of_fact(event: TimelineEvent, fact: &Fact, at: DateTime<Utc>) -> Value {
    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    match fact {
        Fact::RoomStarted { .. } | Fact::RoomFinished => json!({"livekit_at": at}),
        Fact::UserJoined { identity, .. } | Fact::AgentJoined { identity, .. } => {
            json!({"livekit_at": at, "identity": identity})
        }
        Fact::UserLeft { identity, reason, .. } | Fact::AgentLeft { identity, reason, .. } => {
            json!({"livekit_at": at, "identity": identity, "reason": reason})
        }
        Fact::RoomOpened { .. }
        | Fact::RoomOpenedLate { .. }
        | Fact::RoomNotOpened
        | Fact::RoomDeferred
        | Fact::EndRequested
        | Fact::MaxDurationReached
        | Fact::EndAnnounced => of_end(event, fact.end().map(|(_, reason)| reason)),
    }
}

/// The `detail` of an event that the keeper observed or decided. `state` is the new state.
pub(crate) fn of_decision(event: TimelineEvent, state: &State) -> Value {
    match event {
        TimelineEvent::AgentJoined => json!({"identity": state.agent_identity}),
        TimelineEvent::AgentLeft => json!({"identity": state.agent_left_identity}),
        _ => of_end(event, state.end_reason),
    }
}

/// Only the event of the end has a reason.
fn of_end(event: TimelineEvent, reason: Option<EndReason>) -> Value {
    match event {
        TimelineEvent::Ended | TimelineEvent::Failed | TimelineEvent::Expired => {
            json!({"end_reason": reason})
        }
        _ => json!({}),
    }
}
