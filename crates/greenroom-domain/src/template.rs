//! What a session template may say.

use std::fmt;

use serde::Serialize;

use crate::invalid::check_text;
use crate::text_enum::text_enum;
use crate::{Invalid, JsonObject};

text_enum! {
    /// When the room is opened.
    RoomCreation {
        /// By the start, with the agent asked for in the same call.
        OnStart = "on_start",
        /// By the user's joining: LiveKit reads agent and time-outs from the token.
        OnJoin = "on_join",
    }
}

text_enum! {
    /// What the agent's own leaving, with a user there, does to the session.
    OnAgentHangup {
        Keep = "keep",
        End = "end",
    }
}

/// A template's name: 1–100 characters, unique in its organization without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
#[serde(transparent)]
pub struct TemplateName(String);

impl TemplateName {
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

/// The name under which an agent's workers are registered with LiveKit: 1–64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
#[serde(transparent)]
pub struct AgentName(String);

impl AgentName {
    /// A name nobody serves. A room or a token that names no agent at all gets LiveKit's unnamed
    /// default dispatch, so that any unnamed worker walks in; one that names this gets nobody.
    pub const UNSERVED: &'static str = "greenroom.none";

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

/// A whole number of seconds from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Integer)
)]
#[serde(transparent)]
pub struct Seconds<const MIN: i32, const MAX: i32>(i32);

impl<const MIN: i32, const MAX: i32> Seconds<MIN, MAX> {
    /// A value known when the program is compiled; one out of range does not compile.
    #[must_use]
    pub const fn constant<const N: i32>() -> Self {
        const { assert!(MIN <= N && N <= MAX, "the constant is out of range") }
        Self(N)
    }

    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl<const MIN: i32, const MAX: i32> TryFrom<i64> for Seconds<MIN, MAX> {
    type Error = Invalid;

    fn try_from(seconds: i64) -> Result<Self, Invalid> {
        i32::try_from(seconds)
            .ok()
            .filter(|seconds| (MIN..=MAX).contains(seconds))
            .map(Self)
            .ok_or_else(|| {
                Invalid::new(format!("must be a whole number of seconds from {MIN} to {MAX}"))
            })
    }
}

impl<const MIN: i32, const MAX: i32> fmt::Display for Seconds<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How long a session waits for its agent before it is given up.
pub type AgentDeadline = Seconds<5, 300>;
/// How long after the start somebody must have joined.
pub type JoinWindow = Seconds<30, 86_400>;
/// How long the room waits for a user who dropped out: LiveKit's departure time-out.
pub type ReconnectWindow = Seconds<5, 3_600>;
/// The longest a session lasts, counted from the user's joining.
pub type MaxDuration = Seconds<60, 86_400>;
/// How long a token lets its holder connect.
pub type TokenTtl = Seconds<60, 86_400>;

/// The field that contradicts the rest of its template, and why.
pub type Contradiction = (&'static str, Invalid);

/// The rules between a template's fields that no single field's type can hold.
#[must_use]
pub fn contradictions(
    agent_name: Option<&AgentName>,
    agent_required: bool,
    agent_metadata: &JsonObject,
    room_creation: RoomCreation,
) -> Vec<Contradiction> {
    let mut found = Vec::new();
    if agent_required && agent_name.is_none() {
        found.push(("agent_required", Invalid::new("must be false without an agent_name")));
    }
    // An on_join agent is named in the token's room_config, and the user can read a token.
    if room_creation == RoomCreation::OnJoin && !agent_metadata.is_empty() {
        found.push((
            "agent_metadata",
            Invalid::new("must be {} with room_creation on_join, where the user could read it"),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_have_limits() {
        let name = |text: &str| TemplateName::try_from(text.to_owned()).is_ok();
        assert!(!name("") && name("a") && name(&"ü".repeat(100)) && !name(&"a".repeat(101)));
        let agent = |text: &str| AgentName::try_from(text.to_owned()).is_ok();
        assert!(
            !agent("") && agent("greeter") && agent(&"a".repeat(64)) && !agent(&"a".repeat(65))
        );
    }

    #[test]
    fn greenrooms_own_agent_names_are_reserved() {
        assert!(AgentName::try_from(AgentName::UNSERVED.to_owned()).is_err());
        assert!(AgentName::try_from("greenroom".to_owned()).is_ok());
    }

    #[test]
    fn seconds_know_their_range() {
        assert!(JoinWindow::try_from(29).is_err() && JoinWindow::try_from(30).is_ok());
        assert!(JoinWindow::try_from(86_400).is_ok() && JoinWindow::try_from(86_401).is_err());
        assert!(JoinWindow::try_from(i64::from(u32::MAX) + 61).is_err(), "wraps to 60 in 32 bits");
    }

    #[test]
    fn an_enumeration_says_what_would_be_right() {
        let refused = "later".parse::<RoomCreation>().unwrap_err();
        assert_eq!(refused.to_string(), "must be one of on_start on_join");
    }

    #[test]
    fn contradictions_are_all_named() {
        let metadata = JsonObject::try_from(json!({"a": 1}).as_object().unwrap().clone()).unwrap();
        let found = contradictions(None, true, &metadata, RoomCreation::OnJoin);
        let fields: Vec<_> = found.iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["agent_required", "agent_metadata"]);
        assert!(contradictions(None, false, &metadata, RoomCreation::OnStart).is_empty());
    }
}
