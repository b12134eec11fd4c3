//! The OpenAPI document: paperclip's output, patched.
//!
//! paperclip converts from OpenAPI 2, which has no bearer scheme, no nullable properties and only
//! one media type per operation. The document is patched here, so that the wire types need not
//! suit paperclip.

mod order;
mod problems;
mod schema;

use actix_web::App;
use paperclip::actix::OpenApiExt;
use serde_json::{Value, json};

use self::order::{Ordered, SECTIONS};
use self::problems::{add_problem, add_problems};
use self::schema::{
    checks_schema, idempotency_key, parameter_schema, patch_schema, problem_schema,
};
use crate::problem::Code;
use crate::routes;

/// Schemas of responses. Every property is present; some are null.
const RESPONSES: [&str; 5] =
    ["Session", "SessionTemplate", "StartedSession", "TimelineEntry", "Limits"];

/// Tags in the order viewers show them.
const TAGS: [(&str, &str); 4] = [
    ("Sessions", "Start sessions, wait for the agent, refresh tokens, end sessions."),
    ("Templates", "What all sessions of a kind share: the agent, permissions, durations."),
    ("Limits", "How much of its quota an organization uses."),
    ("Operations", "Health checks. No authentication."),
];

/// Returns the document as JSON. It is the same for every process of this version.
#[must_use]
pub fn document() -> String {
    let mut document = json!({});
    let app = App::new().wrap_api().configure(routes::api);
    app.with_raw_json_spec_v3(|app, generated| {
        document = generated;
        app
    });
    patch(&mut document);
    let sections = document.as_object().cloned().unwrap_or_default();
    let ordered = Ordered { object: &sections, first: &SECTIONS };
    serde_json::to_string_pretty(&ordered).unwrap_or_default()
}

fn patch(document: &mut Value) {
    document["info"] = json!({
        "title": "Greenroom",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Start LiveKit sessions: one POST opens the room, dispatches the agent and \
            returns the join token.",
        "license": {"name": "Apache-2.0"},
    });
    document["servers"] = json!([{"url": "/"}]);
    document["tags"] = TAGS
        .iter()
        .map(|(name, description)| json!({"name": name, "description": description}))
        .collect();
    document["security"] = json!([{"bearer": []}]);
    document["components"]["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    });
    let schemas = &mut document["components"]["schemas"];
    for (name, schema) in entries(schemas) {
        patch_schema(schema, RESPONSES.contains(&name.as_str()));
    }
    let template = &mut schemas["NewSessionTemplate"];
    template["required"] = json!(["name"]);
    template["properties"]["name"]["nullable"] = false.into();
    template["additionalProperties"] = false.into();
    let mut change = template.clone();
    change["description"] =
        "A JSON merge patch (RFC 7396). Absent fields stay; null restores the default.".into();
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
    document["paths"]["/livez"] =
        health("Liveness check", "livez", "200 while the process runs.", &[]);
    document["paths"]["/readyz"] = health(
        "Readiness check",
        "readyz",
        "200 while this process can serve requests: the database responds and its schema is up to date. `checks` also reports LiveKit, which does not affect the status.",
        &[Code::NotReady],
    );
    unwrap_descriptions(document);
}

/// Joins the lines of doc comments, which wrap where the source does. Blank lines still separate
/// paragraphs.
fn unwrap_descriptions(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "description" => *text = unwrapped(text),
                    value => unwrap_descriptions(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}

fn unwrapped(text: &str) -> String {
    let paragraphs = text.split("\n\n");
    let joined = paragraphs.map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    // Rustdoc wants backticks around `LiveKit`; readers of the API do not.
    joined.collect::<Vec<_>>().join("\n\n").replace("`LiveKit`", "LiveKit")
}

/// A health check. It needs no token.
fn health(summary: &str, id: &str, description: &str, codes: &[Code]) -> Value {
    let mut responses = json!({"200": {
        "description": "Healthy.",
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
        "tags": ["Operations"], "operationId": id, "summary": summary,
        "description": description, "security": [],
        "responses": responses,
    }})
}

/// Iterates over the members of an object. Other values have none.
fn entries(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn patch_operation(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    add_problems(operation, &id);
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default();
        if let Some(schema) = parameter_schema(name) {
            parameter["schema"] = schema;
        }
        match parameter["name"].as_str() {
            Some("session_id") => parameter["description"] = "The session's id.".into(),
            Some("session_template_id") if parameter["in"] == "path" => {
                parameter["description"] = "The template's id, the same for all versions.".into();
            }
            _ => {}
        }
    }
    let text = |what: &str| json!({"description": what, "schema": {"type": "string"}});
    match id.as_str() {
        "start_session" => {
            // The body is optional if the query names the template.
            operation["requestBody"]["required"] = false.into();
            operation["responses"]["201"]["headers"] = json!({
                "Location": text("The session's URL."),
                "Cache-Control": text("no-store"),
                "Idempotent-Replayed": text(
                    "true if an earlier request with this Idempotency-Key, or an end user's identical request, started the session.",
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
            // An absent body changes nothing.
            operation["requestBody"] = json!({"required": false, "content": content});
        }
        "list_sessions" | "list_session_templates" => {
            let next = "Present if there is a next page: <path?query>; rel=\"next\".";
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

#[cfg(test)]
mod tests {
    use super::order::PATHS;
    use super::problems::OPERATIONS;
    use super::*;

    /// To accept a change: `cargo run -p greenroom -- openapi > docs/openapi.json`
    #[test]
    fn committed_document_is_current() {
        let committed = include_str!("../../../docs/openapi.json");
        assert!(
            committed.trim_end() == document(),
            "docs/openapi.json has drifted; run: cargo run -p greenroom -- openapi > docs/openapi.json"
        );
    }

    #[test]
    fn every_operation_lists_its_problem_codes() {
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

    #[test]
    fn every_operation_and_tag_is_described() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        let mut tags: Vec<&str> = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            assert!(
                PATHS.contains(&path.as_str()),
                "add {path} to PATHS, which orders the document"
            );
            for (method, operation) in item.as_object().unwrap() {
                let description = operation["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{method} {path} has no description");
                assert!(!operation["summary"].as_str().unwrap_or_default().is_empty());
                tags.extend(operation["tags"][0].as_str());
            }
        }
        assert!(tags.iter().all(|tag| TAGS.iter().any(|(known, _)| known == tag)), "{tags:?}");
    }

    #[test]
    fn start_comes_first() {
        let document = document();
        let paths = document.find("\"paths\"").map(|at| &document[at..]).unwrap();
        assert!(paths.starts_with("\"paths\": {\n    \"/api/v1/sessions/start\""), "{paths:.80}");
    }

    #[test]
    fn descriptions_have_no_line_wraps() {
        assert_eq!(
            unwrapped("One\nline of `LiveKit`.\n\nAnother\n  one."),
            "One line of LiveKit.\n\nAnother one."
        );
        for line in document().lines().filter(|line| line.contains("\"description\"")) {
            assert!(!line.replace("\\n\\n", "").contains("\\n"), "{line}");
        }
    }
}
