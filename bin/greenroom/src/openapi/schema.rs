//! JSON Schema constraints that mirror the domain types.

use greenroom_core::PageRequest;
use greenroom_core::domain::lenient::UNKNOWN;
use greenroom_core::domain::lifecycle::TimelineEvent;
use greenroom_core::domain::template::{
    AgentDeadline, JoinWindow, MaxDuration, ReconnectWindow, TokenTtl,
};
use greenroom_core::domain::{
    AgentStatus, EndReason, Modality, OnAgentHangup, PageLimit, PageOffset, RoomCreation,
    SessionStatus, WaitCondition, WaitSeconds,
};
use serde_json::{Value, json};

use super::entries;
use crate::sessions::query::DEFAULT_WAIT;

/// Adds nullability, enumerations and limits to a schema that paperclip generated.
pub fn patch_schema(schema: &mut Value, is_response: bool) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for (name, property) in entries(&mut schema["properties"]) {
        names.push(json!(name));
        if !required.contains(&json!(name)) {
            property["nullable"] = true.into();
        }
        if let Some(words) = words(name, is_response) {
            property["enum"] = words;
            // A nullable enumeration must list null.
            if let (Some(words), true) =
                (property["enum"].as_array_mut(), !required.contains(&json!(name)))
            {
                words.push(Value::Null);
            }
        }
        // paperclip describes any JSON value as an object, also as the type of members.
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
    if is_response {
        schema["required"] = names.into();
    }
}

/// The constraints that the domain type of a property enforces.
fn property_schema(name: &str) -> Option<Value> {
    // No control characters.
    const PRINTABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
    let text = |maximum: u32| json!({"type": "string", "minLength": 1, "maxLength": maximum, "pattern": PRINTABLE});
    let seconds = |minimum: i32, maximum: i32| json!({"type": "integer", "minimum": minimum, "maximum": maximum});
    Some(match name {
        "name" => text(100),
        "user_id" => text(128),
        // An empty string counts as absent.
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
        // Any order is accepted. JSON Schema cannot say that each word appears at most once.
        "modality_profile" => {
            let word = Modality::ALL.map(Modality::as_str).join("|");
            json!({"type": "string", "pattern": format!("^({word})(\\+({word})){{0,3}}$")})
        }
        "enabled_panels" => json!({
            "type": "array", "maxItems": 32,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        }),
        "session_template_id" => json!({"type": "string", "format": "uuid"}),
        "agent_deadline_seconds" => seconds(AgentDeadline::MIN, AgentDeadline::MAX),
        "join_window_seconds" => seconds(JoinWindow::MIN, JoinWindow::MAX),
        "reconnect_window_seconds" => seconds(ReconnectWindow::MIN, ReconnectWindow::MAX),
        "max_duration_seconds" => seconds(MaxDuration::MIN, MaxDuration::MAX),
        "token_ttl_seconds" => seconds(TokenTtl::MIN, TokenTtl::MAX),
        _ => return None,
    })
}

fn texts<T: Copy>(all: &[T], text: impl Fn(T) -> &'static str) -> Value {
    all.iter().map(|word| text(*word)).collect()
}

/// The values of an enumerated property of responses, and `unknown`.
fn texts_or_unknown<T: Copy>(all: &[T], text: impl Fn(T) -> &'static str) -> Value {
    all.iter().map(|word| text(*word)).chain([UNKNOWN]).collect()
}

/// The values of an enumerated property.
fn words(property: &str, is_response: bool) -> Option<Value> {
    match property {
        "status" => Some(texts_or_unknown(SessionStatus::ALL, SessionStatus::as_str)),
        "agent_status" => Some(texts_or_unknown(AgentStatus::ALL, AgentStatus::as_str)),
        "end_reason" => Some(texts_or_unknown(EndReason::ALL, EndReason::as_str)),
        "room_creation" if is_response => {
            Some(texts_or_unknown(RoomCreation::ALL, RoomCreation::as_str))
        }
        "room_creation" => Some(texts(RoomCreation::ALL, RoomCreation::as_str)),
        "event" => Some(texts_or_unknown(TimelineEvent::ALL, TimelineEvent::as_str)),
        "modality_profile" if is_response => Some(profiles()),
        "on_agent_hangup" if is_response => {
            Some(texts_or_unknown(OnAgentHangup::ALL, OnAgentHangup::as_str))
        }
        "on_agent_hangup" => Some(texts(OnAgentHangup::ALL, OnAgentHangup::as_str)),
        _ => None,
    }
}

/// Every modality profile in canonical order, which is the form of responses, and `unknown`.
fn profiles() -> Value {
    let words = Modality::ALL.map(Modality::as_str);
    let profile = |chosen: usize| {
        let word =
            |(place, word): (usize, &&'static str)| (chosen >> place & 1 == 1).then_some(*word);
        words.iter().enumerate().filter_map(word).collect::<Vec<_>>().join("+")
    };
    (1..1 << words.len()).map(profile).chain([UNKNOWN.to_owned()]).collect()
}

/// The schema of a parameter. paperclip knows every parameter as text.
pub fn parameter_schema(name: &str) -> Option<Value> {
    let number = |minimum: i32, maximum: i32, default: i32| json!({"type": "integer", "minimum": minimum, "maximum": maximum, "default": default});
    Some(match name {
        "limit" => {
            let default = PageRequest::DEFAULT_LIMIT.get();
            number(PageLimit::MIN.into(), PageLimit::MAX.into(), default.into())
        }
        "offset" => number(PageOffset::MIN.into(), PageOffset::MAX.into(), 0),
        "wait_for" => {
            json!({"type": "string", "enum": texts(WaitCondition::ALL, WaitCondition::as_str)})
        }
        "timeout_seconds" => {
            let default = DEFAULT_WAIT.get();
            number(WaitSeconds::MIN.into(), WaitSeconds::MAX.into(), default.into())
        }
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

/// The `Idempotency-Key` header. HTTP strips spaces around a value.
pub fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A unique key for this start. A retry with the same key and the same request returns the same session.",
        "required": false,
        "schema": {
            "type": "string", "minLength": 1, "maxLength": 255,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
        },
    })
}

/// The schema of a problem response.
pub fn problem_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "description": "An error (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "request_id", "retryable"],
        "properties": {
            "type": {"type": "string", "example": "urn:greenroom:problem:template_not_found"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": {"type": "string", "description": "Stable identifier of the kind of error.", "example": "template_not_found"},
            "request_id": text,
            "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
            "checks": checks_schema(),
            "errors": {
                "type": "array",
                "description": "The invalid fields of an `invalid_request`.",
                "items": {
                    "type": "object",
                    "required": ["field", "detail"],
                    "properties": {"field": text, "detail": text},
                },
            },
        },
    })
}

/// The schema of the `checks` member of `/readyz`.
pub fn checks_schema() -> Value {
    json!({
        "type": "object",
        "description": "The state of each dependency: `ok`, or a sentence that says what is wrong.",
        "additionalProperties": {"type": "string"},
    })
}
