//! Parses the fields of LiveKit's token-source request, which LiveKit SDKs send to the start.
//!
//! Some SDKs send a field without a value as null or as an empty string, object or list. Such a
//! field counts as absent.

use std::collections::BTreeMap;

use greenroom_core::domain::{AgentName, Invalid, ParticipantAttributes};
use serde_json::{Map, Value};

/// Parses a string. `None` means that the field is absent.
pub fn text(value: Option<Value>) -> Result<Option<String>, Invalid> {
    match value.filter(|value| !is_empty(value)) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Invalid::new("must be a string")),
    }
}

/// Parses the user's attributes. `None` means that they are absent.
pub fn attributes(value: Option<Value>) -> Result<Option<ParticipantAttributes>, Invalid> {
    let wrong = || Invalid::new("must be an object with string values");
    let Some(value) = value.filter(|value| !is_empty(value)) else { return Ok(None) };
    let Value::Object(map) = value else { return Err(wrong()) };
    // Unity's SDK sends an attribute without a value as null.
    let present = map.into_iter().filter(|(_, value)| !value.is_null());
    let texts = present.map(|(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        _ => Err(wrong()),
    });
    let texts: BTreeMap<_, _> = texts.collect::<Result<_, _>>()?;
    if texts.is_empty() {
        return Ok(None);
    }
    ParticipantAttributes::try_from(texts).map(Some)
}

/// A room configuration sets more than the name of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotConfigurable;

/// Parses the one agent that a room configuration names. `None` means that the configuration is
/// absent.
pub fn agent(config: Option<Value>) -> Result<Option<AgentName>, NotConfigurable> {
    let Some(config) = config.and_then(without_empty) else { return Ok(None) };
    let agents = only(&config, &["agents"]).and_then(Value::as_array);
    let Some([agent]) = agents.map(Vec::as_slice) else { return Err(NotConfigurable) };
    let name = only(agent, &["agent_name", "agentName"]).and_then(Value::as_str);
    let name = name.and_then(|name| AgentName::try_from(name.to_owned()).ok());
    name.map(Some).ok_or(NotConfigurable)
}

/// The value of an object's only member, if the member has one of these names.
fn only<'a>(value: &'a Value, names: &[&str]) -> Option<&'a Value> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value)
}

/// Whether a value counts as absent.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Removes empty values at every level. `None` means that nothing is left.
fn without_empty(value: Value) -> Option<Value> {
    let value = match value {
        Value::Array(values) => values.into_iter().filter_map(without_empty).collect(),
        Value::Object(map) => {
            let kept =
                map.into_iter().filter_map(|(key, value)| Some((key, without_empty(value)?)));
            Value::Object(kept.collect::<Map<_, _>>())
        }
        value => value,
    };
    Some(value).filter(|value| !is_empty(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(config: Value) -> Result<Option<String>, NotConfigurable> {
        Ok(agent(Some(config))?.map(|agent| agent.as_str().to_owned()))
    }

    #[test]
    fn room_config_may_name_one_agent_in_snake_or_camel_case() {
        for config in [
            json!({"agents": [{"agent_name": "greeter"}]}),
            json!({"agents": [{"agentName": "greeter", "metadata": ""}], "name": "", "egress": {}}),
            json!({"agents": [{"agent_name": "greeter", "attributes": {"a": null}}, {}]}),
        ] {
            assert_eq!(named(config.clone()), Ok(Some("greeter".to_owned())), "{config}");
        }
    }

    #[test]
    fn empty_room_config_counts_as_absent() {
        assert_eq!(agent(None), Ok(None));
        for config in [
            json!(null),
            json!({}),
            json!([]),
            json!(""),
            json!({"agents": []}),
            json!({"agents": [{"agent_name": "", "metadata": null}], "metadata": ""}),
        ] {
            assert_eq!(named(config.clone()), Ok(None), "{config}");
        }
    }

    #[test]
    fn room_config_with_any_other_setting_is_refused() {
        for config in [
            json!("greeter"),
            json!(["greeter"]),
            json!(0),
            json!({"name": "mine"}),
            json!({"empty_timeout": 0}),
            json!({"agents": "greeter"}),
            json!({"agents": ["greeter"]}),
            json!({"agents": {"agent_name": "greeter"}}),
            json!({"agents": [{"metadata": "x"}]}),
            json!({"agents": [{"agent_name": "greeter", "metadata": "x"}]}),
            json!({"agents": [{"agent_name": "greeter", "agentName": "greeter"}]}),
            json!({"agents": [{"agent_name": "greeter"}, {"agent_name": "other"}]}),
            json!({"agents": [{"agent_name": "greeter"}], "max_participants": 2}),
            json!({"agents": [{"agent_name": 1}]}),
            json!({"agents": [{"agent_name": "greenroom.none"}]}),
            json!({"agents": [{"agent_name": "x".repeat(65)}]}),
        ] {
            assert_eq!(named(config.clone()), Err(NotConfigurable), "{config}");
        }
    }

    #[test]
    fn attributes_are_strings_or_absent() {
        for empty in [json!(null), json!({}), json!([]), json!(""), json!({"a": null})] {
            assert_eq!(attributes(Some(empty)), Ok(None));
        }
        let parsed = attributes(Some(json!({"a": "1", "b": "", "c": null}))).unwrap().unwrap();
        assert_eq!(parsed.to_string(), r#"{"a":"1","b":""}"#);
        for wrong in [json!("a"), json!(["a"]), json!({"a": 1}), json!(true)] {
            assert!(attributes(Some(wrong.clone())).is_err(), "{wrong}");
        }
    }
}
