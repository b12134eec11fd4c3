//! The OpenAPI document: paperclip's, with what it cannot say added.
//!
//! paperclip goes by way of OpenAPI 2, which has no bearer scheme, no null and one media type an
//! operation. Rather than bend our types to that, its document is patched here.

mod schema;

use actix_web::App;
use actix_web::http::StatusCode;
use paperclip::actix::OpenApiExt;
use serde_json::{Map, Value, json};

use crate::problem::{CONTENT_TYPE, Code};
use crate::routes;
use schema::{checks_schema, idempotency_key, parameter_schema, patch_schema, problem_schema};

/// What any operation may answer.
const EVERYWHERE: &[Code] = &[
    Code::InvalidRequest,
    Code::Unauthenticated,
    Code::ScopeMissing,
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
            Code::InvalidIdempotencyKey,
            Code::TemplateForbidden,
            Code::UserForbidden,
            Code::TemplateNotFound,
            Code::SessionOver,
            Code::IdempotencyKeyReused,
            Code::NotConfigurable,
            Code::TooManyActiveSessions,
            Code::RateLimited,
            Code::LiveKitError,
            Code::LiveKitUnavailable,
            Code::LiveKitTimeout,
        ],
    ),
    ("get_session", &[Code::SessionNotFound]),
    ("refresh_session_token", &[Code::SessionNotFound, Code::SessionOver, Code::BodyTooLarge]),
    ("end_session", &[Code::SessionNotFound, Code::BodyTooLarge]),
    ("get_session_timeline", &[Code::SessionNotFound]),
    ("list_sessions", &[Code::InvalidCursor, Code::UserForbidden]),
    ("create_session_template", &[Code::UserForbidden, Code::TemplateNameTaken]),
    ("get_session_template", &[Code::UserForbidden, Code::TemplateNotFound]),
    ("list_session_templates", &[Code::InvalidCursor, Code::UserForbidden]),
    (
        "update_session_template",
        &[Code::UserForbidden, Code::TemplateNotFound, Code::TemplateNameTaken],
    ),
    ("archive_session_template", &[Code::UserForbidden, Code::TemplateNotFound]),
    ("get_limits", &[Code::UserForbidden]),
];

/// What Greenroom answers: it has every member, some of them null.
const ANSWERED: [&str; 5] =
    ["Session", "SessionTemplate", "StartedSession", "TimelineEntry", "Limits"];

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
    let schemas = &mut document["components"]["schemas"];
    for (name, schema) in entries(schemas) {
        patch_schema(schema, ANSWERED.contains(&name.as_str()));
    }
    let template = &mut schemas["NewSessionTemplate"];
    template["required"] = json!(["name"]);
    template["properties"]["name"]["nullable"] = false.into();
    template["additionalProperties"] = false.into();
    let mut change = template.clone();
    change["description"] =
        "After RFC 7396: what is absent stays, null restores the default.".into();
    if let Some(change) = change.as_object_mut() {
        change.remove("required");
    }
    schemas["SessionTemplatePatch"] = change;
    schemas["Problem"] = problem_schema();
    for (_, path) in entries(&mut document["paths"]) {
        for (_, operation) in entries(path) {
            patch_operation(operation);
        }
    }
    document["paths"]["/livez"] = health("Whether the process runs", "livez", &[]);
    document["paths"]["/readyz"] =
        health("Whether requests can be served", "readyz", &[Code::NotReady]);
}

/// A route for operators, which asks for no token.
fn health(summary: &str, id: &str, codes: &[Code]) -> Value {
    let mut responses = json!({"200": {
        "description": "It does.",
        "content": {"application/json": {"schema": {
            "type": "object",
            "required": ["status"],
            "properties": {"status": {"type": "string"}, "checks": checks_schema()},
        }}},
    }});
    for code in codes {
        add_problem(&mut responses, *code);
    }
    json!({"get": {
        "tags": ["Operations"], "operationId": id, "summary": summary, "security": [],
        "responses": responses,
    }})
}

/// The members of an object, in their order; nothing is no object.
fn entries(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn patch_operation(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let own = OPERATIONS.iter().find(|(known, _)| *known == id).map_or(&[][..], |(_, codes)| codes);
    let with_body = if operation["requestBody"].is_object() { WITH_BODY } else { &[] };
    for code in EVERYWHERE.iter().chain(with_body).chain(own) {
        add_problem(&mut operation["responses"], *code);
    }
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default();
        if let Some(schema) = parameter_schema(name) {
            parameter["schema"] = schema;
        }
    }
    let text = |what: &str| json!({"description": what, "schema": {"type": "string"}});
    match id.as_str() {
        "start_session" => {
            // The template may be in the query, and then there need be no body.
            operation["requestBody"]["required"] = false.into();
            operation["responses"]["201"]["headers"] = json!({
                "Location": text("The session."),
                "Cache-Control": text("no-store"),
                "Idempotent-Replayed": text(
                    "true, when an earlier start with this Idempotency-Key, or an end user's same request, had started the session.",
                ),
            });
            add_parameter(operation, idempotency_key());
        }
        "refresh_session_token" => {
            operation["responses"]["200"]["headers"] = json!({"Cache-Control": text("no-store")});
        }
        "update_session_template" => {
            let change = json!({"schema": {"$ref": "#/components/schemas/SessionTemplatePatch"}});
            let content = json!({
                "application/merge-patch+json": change,
                "application/json": change,
            });
            // An absent body is one that changes nothing.
            operation["requestBody"] = json!({"required": false, "content": content});
        }
        "list_sessions" | "list_session_templates" => {
            let next = "The next page, when there is one: <path?query>; rel=\"next\".";
            operation["responses"]["200"]["headers"] = json!({"Link": text(next)});
        }
        _ => {}
    }
}

fn add_parameter(operation: &mut Value, parameter: Value) {
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(parameter),
        None => operation["parameters"] = json!([parameter]),
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
        *response = json!({
            "description": code.as_str(), "content": content, "headers": headers(code),
        });
        return;
    }
    let named = response["description"].as_str().unwrap_or_default();
    response["description"] = format!("{named}, {}", code.as_str()).into();
}

/// What a failure has beside its body.
fn headers(code: Code) -> Value {
    let text = |what: &str| json!({"description": what, "schema": {"type": "string"}});
    let mut headers = json!({"x-request-id": text("The request's id, as in the body.")});
    if code.retryable() {
        headers["Retry-After"] = json!({
            "description": "Seconds until the same request may succeed.",
            "schema": {"type": "integer"},
        });
    }
    match code.status() {
        StatusCode::UNAUTHORIZED => headers["WWW-Authenticate"] = text("Bearer"),
        StatusCode::TOO_MANY_REQUESTS => {
            for (name, what) in [
                ("RateLimit-Limit", "How many there may be."),
                ("RateLimit-Remaining", "How many are left: 0."),
                ("RateLimit-Reset", "Seconds until all of them may be left again."),
            ] {
                headers[name] = json!({"description": what, "schema": {"type": "integer"}});
            }
        }
        StatusCode::METHOD_NOT_ALLOWED => headers["Allow"] = text("The methods there are."),
        _ => {}
    }
    headers
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
        let api = entries(&mut document["paths"]).filter(|(path, _)| path.starts_with("/api/"));
        let operations = api.flat_map(|(_, path)| entries(path));
        let mut documented: Vec<_> = operations
            .map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned())
            .collect();
        let mut known: Vec<_> = OPERATIONS.iter().map(|(id, _)| (*id).to_owned()).collect();
        documented.sort();
        known.sort();
        assert_eq!(documented, known);
    }
}
