//! The OpenAPI document: paperclip's, with what it cannot say added.
//!
//! paperclip goes by way of OpenAPI 2, which has no bearer scheme, no null and one media type an
//! operation. Rather than bend our types to that, its document is patched here.

use actix_web::App;
use greenroom_core::domain::{AgentStatus, EndReason, OnAgentHangup, RoomCreation, SessionStatus};
use paperclip::actix::OpenApiExt;
use serde_json::{Map, Value, json};

use crate::problem::{CONTENT_TYPE, Code};
use crate::routes;

/// What any operation may answer.
const EVERYWHERE: &[Code] = &[
    Code::InvalidRequest,
    Code::Unauthenticated,
    Code::ScopeMissing,
    Code::UserForbidden,
    Code::MethodNotAllowed,
    Code::Internal,
    Code::DatabaseUnavailable,
    Code::Overloaded,
];

/// What operations with a body may answer.
const WITH_BODY: &[Code] = &[Code::BodyTooLarge, Code::UnsupportedMediaType];

/// What else each operation may answer.
const OPERATIONS: &[(&str, &[Code])] = &[
    (
        "start_session",
        &[
            Code::TemplateForbidden,
            Code::TemplateNotFound,
            Code::NotConfigurable,
            Code::LiveKitError,
            Code::LiveKitUnavailable,
            Code::LiveKitTimeout,
        ],
    ),
    ("get_session", &[Code::SessionNotFound, Code::NotConfigurable]),
    ("list_sessions", &[Code::NotConfigurable]),
    ("create_session_template", &[Code::TemplateNameTaken]),
    ("get_session_template", &[Code::TemplateNotFound]),
    ("list_session_templates", &[Code::NotConfigurable]),
];

/// The document as JSON, the same for every process of this version.
#[must_use]
pub fn document() -> String {
    let mut document = json!({});
    let app = App::new().wrap_api().configure(routes::api);
    app.with_raw_json_spec_v3(|app, generated| {
        document = generated;
        app
    });
    patch(&mut document);
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

fn patch(document: &mut Value) {
    document["info"] = json!({
        "title": "Greenroom",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Starts LiveKit sessions: the room, the agent and the token, by one POST.",
        "license": {"name": "Apache-2.0"},
    });
    document["servers"] = json!([{"url": "/"}]);
    document["security"] = json!([{"bearer": []}]);
    document["components"]["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    });
    for (name, schema) in entries(&mut document["components"]["schemas"]) {
        // What Greenroom answers has every member, some of them null.
        let answered = matches!(name.as_str(), "Session" | "SessionTemplate" | "StartedSession");
        patch_schema(schema, answered);
    }
    let template = &mut document["components"]["schemas"]["NewSessionTemplate"];
    template["required"] = json!(["name"]);
    template["properties"]["name"]["nullable"] = false.into();
    template["additionalProperties"] = false.into();
    document["components"]["schemas"]["Problem"] = problem_schema();
    for (_, path) in entries(&mut document["paths"]) {
        for (_, operation) in entries(path) {
            patch_operation(operation);
        }
    }
}

/// The members of an object, in their order; nothing is no object.
fn entries(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn patch_schema(schema: &mut Value, answered: bool) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for (name, property) in entries(&mut schema["properties"]) {
        names.push(json!(name));
        if !required.contains(&json!(name)) {
            property["nullable"] = true.into();
        }
        if let Some(words) = words(name) {
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
    }
    if answered {
        schema["required"] = names.into();
    }
}

/// The words of a property that is an enumeration.
fn words(property: &str) -> Option<Value> {
    fn texts<T: Copy>(all: &[T], text: impl Fn(T) -> &'static str) -> Value {
        all.iter().map(|word| text(*word)).collect()
    }
    match property {
        "status" => Some(texts(SessionStatus::ALL, SessionStatus::as_str)),
        "agent_status" => Some(texts(AgentStatus::ALL, AgentStatus::as_str)),
        "end_reason" => Some(texts(EndReason::ALL, EndReason::as_str)),
        "room_creation" => Some(texts(RoomCreation::ALL, RoomCreation::as_str)),
        "on_agent_hangup" => Some(texts(OnAgentHangup::ALL, OnAgentHangup::as_str)),
        _ => None,
    }
}

fn patch_operation(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let own = OPERATIONS.iter().find(|(known, _)| *known == id).map_or(&[][..], |(_, codes)| codes);
    let with_body = if operation["requestBody"].is_object() { WITH_BODY } else { &[] };
    for code in EVERYWHERE.iter().chain(with_body).chain(own) {
        add_problem(&mut operation["responses"], *code);
    }
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        let schema = match parameter["name"].as_str() {
            Some("limit") => {
                json!({"type": "integer", "minimum": 1, "maximum": 200, "default": 50})
            }
            Some("offset") => {
                json!({"type": "integer", "minimum": 0, "maximum": 10_000, "default": 0})
            }
            Some("session_template_id") => json!({"type": "string", "format": "uuid"}),
            _ => continue,
        };
        parameter["schema"] = schema;
    }
    if id == "start_session" {
        // The template may be in the query, and then there need be no body.
        operation["requestBody"]["required"] = false.into();
        operation["responses"]["201"]["headers"] = json!({
            "Location": {"description": "The session.", "schema": {"type": "string"}},
            "Cache-Control": {"description": "no-store", "schema": {"type": "string"}},
        });
    }
}

/// Adds a code to the response of its status.
fn add_problem(responses: &mut Value, code: Code) {
    let response = &mut responses[code.status().as_str()];
    if response.is_null() {
        let content = Map::from_iter([(
            CONTENT_TYPE.to_owned(),
            json!({"schema": {"$ref": "#/components/schemas/Problem"}}),
        )]);
        *response = json!({"description": code.as_str(), "content": content});
        return;
    }
    let named = response["description"].as_str().unwrap_or_default();
    response["description"] = format!("{named}, {}", code.as_str()).into();
}

fn problem_schema() -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// To accept a change: `cargo run -p greenroom -- openapi > docs/openapi.json`
    #[test]
    fn the_committed_document_is_this_one() {
        let committed = include_str!("../../../docs/openapi.json");
        assert!(
            committed.trim_end() == document(),
            "docs/openapi.json has drifted: cargo run -p greenroom -- openapi > docs/openapi.json"
        );
    }

    #[test]
    fn every_operation_says_how_it_fails() {
        let mut document: Value = serde_json::from_str(&document()).unwrap();
        let operations = entries(&mut document["paths"]).flat_map(|(_, path)| entries(path));
        let mut documented: Vec<_> = operations
            .map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned())
            .collect();
        let mut known: Vec<_> = OPERATIONS.iter().map(|(id, _)| (*id).to_owned()).collect();
        documented.sort();
        known.sort();
        assert_eq!(documented, known);
    }
}
