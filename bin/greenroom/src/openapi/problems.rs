//! The problem codes of each operation, and their responses.

use actix_web::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::problem::{CONTENT_TYPE, Code};

/// Problem codes that every operation may return.
const EVERYWHERE: &[Code] = &[
    Code::InvalidRequest,
    Code::Unauthenticated,
    Code::ScopeMissing,
    Code::MethodNotAllowed,
    Code::Internal,
    Code::DatabaseUnavailable,
    Code::Overloaded,
];

/// Problem codes of operations with a request body.
const WITH_BODY: &[Code] = &[Code::BodyTooLarge, Code::UnsupportedMediaType];

/// Further problem codes of each operation.
pub const OPERATIONS: &[(&str, &[Code])] = &[
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
            Code::NotReady,
        ],
    ),
    ("get_session", &[Code::SessionNotFound, Code::NotReady]),
    (
        "refresh_session_token",
        &[Code::SessionNotFound, Code::SessionOver, Code::BodyTooLarge, Code::NotReady],
    ),
    ("end_session", &[Code::SessionNotFound, Code::BodyTooLarge, Code::NotReady]),
    ("get_session_timeline", &[Code::SessionNotFound, Code::NotReady]),
    ("list_sessions", &[Code::InvalidCursor, Code::UserForbidden]),
    ("create_session_template", &[Code::UserForbidden, Code::TemplateNameTaken]),
    ("get_session_template", &[Code::UserForbidden, Code::TemplateNotFound, Code::NotReady]),
    ("list_session_templates", &[Code::InvalidCursor, Code::UserForbidden]),
    (
        "update_session_template",
        &[Code::UserForbidden, Code::TemplateNotFound, Code::TemplateNameTaken, Code::NotReady],
    ),
    ("archive_session_template", &[Code::UserForbidden, Code::TemplateNotFound, Code::NotReady]),
    ("get_limits", &[Code::UserForbidden]),
];

/// Adds the problem codes of an operation with this id to its responses.
pub fn add_problems(operation: &mut Value, id: &str) {
    let own = OPERATIONS.iter().find(|(known, _)| *known == id).map_or(&[][..], |(_, codes)| codes);
    let with_body = if operation["requestBody"].is_object() { WITH_BODY } else { &[] };
    for code in EVERYWHERE.iter().chain(with_body).chain(own) {
        add_problem(&mut operation["responses"], *code);
    }
}

/// Adds a problem code to the response of its status.
pub fn add_problem(responses: &mut Value, code: Code) {
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

/// Headers of a problem response.
fn headers(code: Code) -> Value {
    let text = |what: &str| json!({"description": what, "schema": {"type": "string"}});
    let mut headers = json!({"x-request-id": text("The request id, as in the body.")});
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
                (
                    "RateLimit-Limit",
                    "Maximum starts per minute, or maximum number of open sessions.",
                ),
                ("RateLimit-Remaining", "Starts or sessions left: 0."),
                ("RateLimit-Reset", "Seconds until the whole limit is available again."),
            ] {
                headers[name] = json!({"description": what, "schema": {"type": "integer"}});
            }
        }
        StatusCode::METHOD_NOT_ALLOWED => headers["Allow"] = text("Methods of this path."),
        _ => {}
    }
    headers
}
