//! The fields of a session template, and the rules between them.

use serde::Serialize;

use crate::invalid::check_text;
use crate::quantity::seconds;
use crate::text_enum::text_enum;
use crate::{Invalid, JsonObject, Lenient};

text_enum! {
    /// The event that opens the room.
    RoomCreation {
        /// The start opens the room and dispatches the agent in the same call.
        OnStart = "on_start",
        /// The user's join opens the room. LiveKit reads the agent and the timeouts from the token.
        OnJoin = "on_join",
    }
}

text_enum! {
    /// The effect on the session if the agent hangs up while the user is in the room.
    OnAgentHangup {
        /// The session stays open.
        Keep = "keep",
        /// The session ends with [`EndReason::AgentLeft`](crate::EndReason::AgentLeft).
        End = "end",
    }
}

/// The name of a template: 1 to 100 characters. Names are unique in an organization, ignoring case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
#[serde(transparent)]
pub struct TemplateName(String);

impl TemplateName {
    /// Returns the text: 1 to 100 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TemplateName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        check_text(&text, 100)?;
        Ok(Self(text))
    }
}

/// The name with which an agent's workers register at LiveKit: 1 to 64 characters. Names that start
/// with `greenroom.` are reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
#[serde(transparent)]
pub struct AgentName(String);

impl AgentName {
    /// A reserved name that no worker serves. LiveKit adds an unnamed default dispatch to a room or
    /// a token without an agent, and any unnamed worker accepts it. Naming this agent prevents
    /// that.
    pub const UNSERVED: &'static str = "greenroom.none";

    /// Returns the text: 1 to 64 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        check_text(&text, 64)?;
        if text.starts_with("greenroom.") {
            return Err(Invalid::new("must not begin with greenroom., which is reserved"));
        }
        Ok(Self(text))
    }
}

seconds! {
    /// Time that an agent has to join after it was requested, before it counts as unavailable:
    /// 5 to 300 seconds.
    AgentDeadline = 5..=300, "agent deadline";
    /// Time after the start within which the user must join: 30 to 86,400 seconds.
    JoinWindow = 30..=86_400, "join window";
    /// Time that the room waits for a user who left, LiveKit's `departure_timeout`: 5 to 3,600
    /// seconds.
    ReconnectWindow = 5..=3_600, "reconnect window";
    /// Maximum duration of a session, counted from the user's join: 60 to 86,400 seconds.
    MaxDuration = 60..=86_400, "maximum duration";
    /// Time within which the user can connect with a token: 60 to 86,400 seconds.
    TokenTtl = 60..=86_400, "token lifetime";
}

/// The name of a field that contradicts other fields of its template, and the reason.
pub type Contradiction = (&'static str, Invalid);

/// Returns the fields that violate a rule between several fields of a template.
#[must_use]
pub fn contradictions(
    agent_name: Option<&AgentName>,
    agent_required: bool,
    agent_metadata: &JsonObject,
    room_creation: Lenient<RoomCreation>,
) -> Vec<Contradiction> {
    let mut found = Vec::new();
    if agent_required && agent_name.is_none() {
        found.push(("agent_required", Invalid::new("must be false without an agent_name")));
    }
    // With on_join the dispatch is part of the token, which the user can read.
    if room_creation == RoomCreation::OnJoin && !agent_metadata.is_empty() {
        found.push((
            "agent_metadata",
            Invalid::new("must be {} with room_creation on_join, because the user could read it"),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn name_lengths_are_limited() {
        let name = |text: &str| TemplateName::try_from(text.to_owned()).is_ok();
        assert!(!name("") && name("a") && name(&"ü".repeat(100)) && !name(&"a".repeat(101)));
        let agent = |text: &str| AgentName::try_from(text.to_owned()).is_ok();
        assert!(
            !agent("") && agent("greeter") && agent(&"a".repeat(64)) && !agent(&"a".repeat(65))
        );
    }

    #[test]
    fn reserved_agent_names_are_refused() {
        assert!(AgentName::try_from(AgentName::UNSERVED.to_owned()).is_err());
        assert!(AgentName::try_from("greenroom".to_owned()).is_ok());
    }

    #[test]
    fn enumeration_error_lists_valid_values() {
        let refused = "later".parse::<RoomCreation>().unwrap_err();
        assert_eq!(refused.to_string(), "must be one of on_start on_join");
    }

    #[test]
    fn all_contradictions_are_returned() {
        let metadata = JsonObject::try_from(json!({"a": 1}).as_object().unwrap().clone()).unwrap();
        let found = contradictions(None, true, &metadata, RoomCreation::OnJoin.into());
        let fields: Vec<_> = found.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["agent_required", "agent_metadata"]);
        assert!(contradictions(None, false, &metadata, RoomCreation::OnStart.into()).is_empty());
    }
}
