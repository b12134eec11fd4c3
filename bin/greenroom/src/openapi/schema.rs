//! The schemas of the document: what the domain's types hold, in the words of JSON Schema.

use greenroom_core::domain::lifecycle::TimelineEvent;
use greenroom_core::domain::{
    AgentStatus, EndReason, Modality, OnAgentHangup, RoomCreation, SessionStatus, WaitCondition,
};
use serde_json::{Value, json};

use super::entries;

/// Adds to one of paperclip's schemas what it cannot say.
pub fn patch_schema(schema: &mut Value, answered: bool) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for (name, property) in entries(&mut schema["properties"]) {
        names.push(json!(name));
        if !required.contains(&json!(name)) {
            property["nullable"] = true.into();
        }
        if let Some(words) = words(name, answered) {
            property["enum"] = words;
            // An enumeration that may be null names null among its values.
            if let (Some(words), true) =
                (property["enum"].as_array_mut(), !required.contains(&json!(name)))
            {
                words.push(Value::Null);
            }
        }
        // Any JSON value is an object to paperclip: as the members of one, and by itself.
        let members = property.get("additionalProperties").is_some();
        match property.as_object_mut() {
            Some(property) if members => {
                property.insert("additionalProperties".to_owned(), json!({}));
            }
            Some(property) if property.get("type") == Some(&json!("object")) => {
                property.remove("type");
            }
            _ => {}
        }
        if let Some(limits) = property_schema(name) {
            limits.as_object().into_iter().flatten().for_each(|(keyword, limit)| {
                property[keyword] = limit.clone();
            });
        }
    }
    if answered {
        schema["required"] = names.into();
    }
}

/// The limits of a property that the domain's types hold, in the words of JSON Schema.
fn property_schema(name: &str) -> Option<Value> {
    // Neither NUL nor any other control character.
    const PRINTABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
    let text = |maximum: u32| json!({"type": "string", "minLength": 1, "maxLength": maximum, "pattern": PRINTABLE});
    let seconds = |minimum: i32, maximum: i32| json!({"type": "integer", "minimum": minimum, "maximum": maximum});
    Some(match name {
        "name" => text(100),
        "user_id" => text(128),
        // An empty one is none.
        "participant_name" | "participant_identity" => {
            json!({"type": "string", "maxLength": 128, "pattern": PRINTABLE})
        }
        "participant_attributes" => json!({
            "type": "object", "maxProperties": 32,
            "additionalProperties": {"type": "string", "pattern": r"^[^\u0000]*$"},
        }),
        "agent_name" => json!({
            "type": "string", "minLength": 1, "maxLength": 64,
            "pattern": r"^(?!greenroom\.)[^\u0000-\u001f\u007f-\u009f]*$",
        }),
        // In any order, though no schema says that none comes twice.
        "modality_profile" => {
            let word = Modality::ALL.map(Modality::as_str).join("|");
            json!({"type": "string", "pattern": format!("^({word})(\\+({word})){{0,3}}$")})
        }
        "enabled_panels" => json!({
            "type": "array", "maxItems": 32,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        }),
        "session_template_id" => json!({"type": "string", "format": "uuid"}),
        "agent_deadline_seconds" => seconds(5, 300),
        "join_window_seconds" => seconds(30, 86_400),
        "reconnect_window_seconds" => seconds(5, 3_600),
        "max_duration_seconds" | "token_ttl_seconds" => seconds(60, 86_400),
        _ => return None,
    })
}

fn texts<T: Copy>(all: &[T], text: impl Fn(T) -> &'static str) -> Value {
    all.iter().map(|word| text(*word)).collect()
}

/// The words of a property that is an enumeration.
fn words(property: &str, answered: bool) -> Option<Value> {
    match property {
        "status" => Some(texts(SessionStatus::ALL, SessionStatus::as_str)),
        "agent_status" => Some(texts(AgentStatus::ALL, AgentStatus::as_str)),
        "end_reason" => Some(texts(EndReason::ALL, EndReason::as_str)),
        "room_creation" => Some(texts(RoomCreation::ALL, RoomCreation::as_str)),
        "event" => Some(texts(TimelineEvent::ALL, TimelineEvent::as_str)),
        "modality_profile" if answered => Some(profiles()),
        "on_agent_hangup" => Some(texts(OnAgentHangup::ALL, OnAgentHangup::as_str)),
        _ => None,
    }
}

/// Every profile in its written order, which is how it is answered.
fn profiles() -> Value {
    let words = Modality::ALL.map(Modality::as_str);
    let profile = |chosen: usize| {
        let word =
            |(place, word): (usize, &&'static str)| (chosen >> place & 1 == 1).then_some(*word);
        words.iter().enumerate().filter_map(word).collect::<Vec<_>>().join("+")
    };
    (1..1 << words.len()).map(profile).collect()
}

/// What a parameter's text may be, which paperclip knows as text alone.
pub fn parameter_schema(name: &str) -> Option<Value> {
    let number = |minimum: i32, maximum: i32, default: i32| json!({"type": "integer", "minimum": minimum, "maximum": maximum, "default": default});
    Some(match name {
        "limit" => number(1, 200, 50),
        "offset" => number(0, 10_000, 0),
        "wait_for" => {
            json!({"type": "string", "enum": texts(WaitCondition::ALL, WaitCondition::as_str)})
        }
        "timeout_seconds" => number(1, 30, 30),
        "session_template_id" => json!({"type": "string", "format": "uuid"}),
        "created_after" | "created_before" => json!({"type": "string", "format": "date-time"}),
        "include_archived" => json!({"type": "boolean", "default": false}),
        "user_id" => property_schema("user_id")?,
        "status" => {
            let words: Vec<_> = SessionStatus::ALL.iter().map(|word| word.as_str()).collect();
            let word = words.join("|");
            json!({"type": "string", "pattern": format!("^({word})(,({word}))*$")})
        }
        _ => return None,
    })
}

/// The header that makes a repeated start one start. HTTP drops spaces around a value.
pub fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Your own name for this start: sent again with the same request, it is the same session.",
        "required": false,
        "schema": {
            "type": "string", "minLength": 1, "maxLength": 255,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
        },
    })
}

/// A failure.
pub fn problem_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "description": "A failure, after RFC 9457.",
        "required": ["type", "title", "status", "detail", "code", "request_id", "retryable"],
        "properties": {
            "type": {"type": "string", "example": "urn:greenroom:problem:template_not_found"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": {"type": "string", "description": "One stable word.", "example": "template_not_found"},
            "request_id": text,
            "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
            "checks": checks_schema(),
            "errors": {
                "type": "array",
                "description": "The wrong fields of an invalid_request.",
                "items": {
                    "type": "object",
                    "required": ["field", "detail"],
                    "properties": {"field": text, "detail": text},
                },
            },
        },
    })
}

/// What `/readyz` looked at.
pub fn checks_schema() -> Value {
    json!({
        "type": "object",
        "description": "Each part: ok, or what is wrong with it.",
        "additionalProperties": {"type": "string"},
    })
}
