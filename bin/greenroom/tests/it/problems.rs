//! All failures are problem+json, including those of extractors and of the router.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, answer, uuid};

const START: &str = "/api/v1/sessions/start";
const TEMPLATES: &str = "/api/v1/session-templates";

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems() {
    let app = App::start().await;
    for path in [
        "/",
        "/api/v1",
        "/api/v2/sessions",
        "/api/v1/sessions/a/b/c",
        "/api/v1/sessions/",
        "/docs/x",
    ] {
        app.get(path).await.assert_problem(404, "route_not_found");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/sessions", "GET"),
        (Method::GET, START, "POST"),
        (Method::PUT, "/api/v1/session-templates", "GET, POST"),
        (Method::PUT, "/api/v1/session-templates/x", "GET, PATCH, DELETE"),
        (Method::GET, "/api/v1/sessions/x/token", "POST"),
        (Method::GET, "/api/v1/sessions/x/end", "POST"),
        (Method::POST, "/api/v1/sessions/x/timeline", "GET"),
        (Method::GET, "/webhooks/livekit", "POST"),
        (Method::POST, "/livez", "GET, HEAD"),
    ] {
        // `GET /sessions/start` must not be routed as a session with the id `start`.
        let refused = answer(app.request(method, path)).await;
        refused.assert_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), allow, "{path}");
    }
}

#[tokio::test]
async fn bodies_other_than_json_objects_are_refused() {
    let app = App::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies: [&[u8]; 10] = [
        b"{",
        b"[]",
        b"null",
        b"\"x\"",
        b"{} {}",
        b"[\"0193b8a0-0000-7000-8000-000000000001\", null, null, null, null, null, null, null, null]",
        b"{\"user_id\": \"\xff\"}",
        b"\x00",
        deep.as_bytes(),
        b"{\"user_id\": \"\\ud800\"}",
    ];
    for body in bodies {
        let request = app.request(Method::POST, START).header("content-type", "application/json");
        let refused = answer(request.body(body.to_vec())).await;
        refused.assert_problem(400, "invalid_request");
        assert!(matches!(refused.fields()[..], ["body" | "user_id"]), "{}", refused.body);
    }
}

#[tokio::test]
async fn wrong_type_names_expected_type_and_hides_value() {
    let app = App::start().await;
    let template = uuid();
    for (path, body, field, detail) in [
        (START, json!({"user_id": 7}), "user_id", "must be a string"),
        (
            START,
            json!({"session_template_id": template, "metadata": "s3cret"}),
            "metadata",
            "must be an object",
        ),
        (
            TEMPLATES,
            json!({"name": "n", "join_window_seconds": 60.5}),
            "join_window_seconds",
            "must be a whole number",
        ),
        (
            TEMPLATES,
            json!({"name": "n", "join_window_seconds": "s3cret"}),
            "join_window_seconds",
            "must be a whole number",
        ),
        (
            TEMPLATES,
            json!({"name": "n", "agent_required": "s3cret"}),
            "agent_required",
            "must be true or false",
        ),
        (
            TEMPLATES,
            json!({"name": "n", "enabled_panels": {}}),
            "enabled_panels",
            "must be an array",
        ),
        (TEMPLATES, json!({"name": "n", "s3cret": 1}), "s3cret", "is not a known field; remove it"),
    ] {
        let refused = app.post(path, &body).await;
        refused.assert_problem(400, "invalid_request");
        let errors = json!([{"field": field, "detail": detail}]);
        assert_eq!(refused.body["errors"], errors, "{body}");
    }
}

#[tokio::test]
async fn numbers_over_64_bits_are_refused_or_stored_as_float() {
    let app = App::start().await;
    let send = async |path: &str, body: String| {
        let request = app.request(Method::POST, path).header("content-type", "application/json");
        answer(request.body(body)).await
    };
    for number in ["18446744073709551616", "-9223372036854775809", "1e300", "-1e300"] {
        let body = format!("{{\"name\": \"n\", \"join_window_seconds\": {number}}}");
        let refused = send(TEMPLATES, body).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), ["join_window_seconds"], "{number}");
    }
    send(TEMPLATES, "{\"name\": \"n\", \"x\": 1e400}".to_owned())
        .await
        .assert_problem(400, "invalid_request");
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let body = format!(
        "{{\"session_template_id\": \"{template}\", \"metadata\": {{\"n\": 18446744073709551616}}}}"
    );
    let started = send(START, body).await;
    assert_eq!(started.status, 201, "{}", started.body);
    let stored = app.get(started.header("location")).await.body["metadata"]["n"].as_f64();
    assert_eq!(stored, Some(18_446_744_073_709_551_616.0), "as a floating point number");
}

#[tokio::test]
async fn incomplete_body_times_out() {
    let app = App::start().await;
    let before = Instant::now();
    let head = format!(
        "POST {START} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{",
        app.token()
    );
    let answered = app.send_raw(&head).await;
    assert!(
        answered.starts_with("HTTP/1.1 400") && answered.contains("within 5 seconds"),
        "{answered}"
    );
    assert!(before.elapsed() < Duration::from_secs(7), "it took {:?}", before.elapsed());
}

/// `Answer::assert_problem` also checks that the OpenAPI document lists the code for the operation.
#[test]
fn every_code_is_asserted_by_a_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    let mut tests = String::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        // Skip the folder with the scripts of browser pages.
        if path.is_file() {
            tests += &std::fs::read_to_string(path).unwrap();
        }
    }
    let table = include_str!("../../src/problem/code.rs");
    let codes: Vec<_> =
        table.lines().filter_map(|line| line.split(" = \"").nth(1)?.split('"').next()).collect();
    assert!(codes.len() > 20, "{codes:?}");
    for code in codes {
        assert!(
            tests.contains(&format!("\"{code}\")")) || tests.contains(&format!("\"{code}\")),")),
            "{code}"
        );
    }
}

/// Compares the table of errors in the guide with the table of codes.
#[test]
fn guide_explains_every_code() {
    let guide = include_str!("../../../../docs/api/session-initiation.md");
    let table = include_str!("../../src/problem/code.rs");
    let mut explained: Vec<_> = guide
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once("` | ")?
                .1
                .get(..3)?
                .parse::<u16>()
                .ok()
                .map(|_| line)
        })
        .map(|line| line.split('`').nth(1).unwrap())
        .collect();
    let mut known: Vec<_> =
        table.lines().filter_map(|line| line.split(" = \"").nth(1)?.split('"').next()).collect();
    explained.sort_unstable();
    known.sort_unstable();
    assert_eq!(explained, known);
}

/// Compares the JSON examples of the guide with the OpenAPI schemas.
#[test]
fn guide_examples_match_openapi_schemas() {
    let guide = include_str!("../../../../docs/api/session-initiation.md");
    let document: Value =
        serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let members = |schema: &str| {
        let members = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        members.keys().cloned().collect::<HashSet<_>>()
    };
    let examples: Vec<Value> = guide
        .split("```json\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).unwrap())
        .collect();
    let schemas = [
        "StartRequest",
        "StartedSession",
        "Session",
        "TimelineEntry",
        "NewSessionTemplate",
        "Limits",
        "Problem",
    ];
    assert_eq!(examples.len(), schemas.len());
    for (example, schema) in examples.iter().zip(schemas) {
        let known = members(schema);
        // An array is checked by its first element.
        let example = example.get(0).unwrap_or(example);
        let own: HashSet<_> = example.as_object().unwrap().keys().cloned().collect();
        assert!(own.is_subset(&known), "{schema}: {own:?}");
        if matches!(schema, "StartedSession" | "Session" | "TimelineEntry" | "Limits") {
            assert_eq!(own, known, "the example of {schema} must have every field");
        }
    }
}

#[tokio::test]
async fn body_not_declared_as_json_is_refused() {
    let app = App::start().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "", "json"] {
        let request =
            app.request(Method::POST, START).header("content-type", content_type).body("{}");
        answer(request).await.assert_problem(415, "unsupported_media_type");
    }
    let accepted =
        app.request(Method::POST, START).header("content-type", "Application/JSON; charset=utf-8");
    answer(accepted.body("{}")).await.assert_problem(400, "invalid_request");
}

#[tokio::test]
async fn body_over_64_kib_is_refused() {
    let app = App::start().await;
    let padded = |bytes: usize| format!("{{\"x\": \"{}\"}}", "x".repeat(bytes - 9));
    let send = async |bytes| {
        let request = app.request(Method::POST, START).header("content-type", "application/json");
        answer(request.body(padded(bytes))).await
    };
    send(64 * 1024).await.assert_problem(400, "invalid_request");
    send(64 * 1024 + 1).await.assert_problem(413, "body_too_large");
    send(10 * 1024 * 1024).await.assert_problem(413, "body_too_large");
}

#[tokio::test]
async fn valid_request_id_of_caller_is_kept() {
    let app = App::start().await;
    for (sent, kept) in
        [("trace.1_A-b", true), ("no spaces", false), (&"x".repeat(129), false), ("", false)]
    {
        let answer =
            answer(app.request(Method::GET, "/nowhere").header("x-request-id", sent)).await;
        answer.assert_problem(404, "route_not_found");
        assert_eq!(answer.header("x-request-id") == sent, kept, "{sent:?}");
    }
    assert!(
        !app.get("/api/v1/sessions").await.header("x-request-id").is_empty(),
        "a successful response has an id"
    );
}

#[tokio::test]
async fn health_and_openapi_need_no_token() {
    let app = App::start().await;
    let get = async |path: &str| answer(app.client.get(format!("{}{path}", app.address))).await;
    assert_eq!(get("/livez").await.status, 200);
    let ready = get("/readyz").await;
    assert_eq!(ready.status, 200);
    let checks = json!({"database": "ok", "migrations": "ok", "livekit": "ok"});
    assert_eq!(ready.body, json!({"status": "ready", "checks": checks}));
    for path in ["/livez", "/readyz", "/openapi.json", "/docs"] {
        let head = answer(app.client.head(format!("{}{path}", app.address))).await;
        assert_eq!((head.status, &head.body), (200, &json!("")), "{path}");
    }
    assert_eq!(get("/openapi.json").await.body["info"]["title"], "Greenroom");
}
