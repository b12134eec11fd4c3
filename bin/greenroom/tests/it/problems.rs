//! Every failure is problem+json, whoever finds it: our code, an extractor, or no route at all.

use reqwest::Method;
use serde_json::json;

use crate::app::{App, answer};

const START: &str = "/api/v1/sessions/start";

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems() {
    let app = App::start().await;
    for path in
        ["/", "/api/v1", "/api/v2/sessions", "/api/v1/sessions/a/b/c", "/api/v1/sessions/", "/docs"]
    {
        app.get(path).await.assert_problem(404, "route_not_found");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/sessions", "GET"),
        (Method::GET, START, "POST"),
        (Method::PUT, "/api/v1/session-templates", "GET, POST"),
        (Method::POST, "/livez", "GET"),
    ] {
        // GET on start is a session whose id is no UUID to nobody: its own route comes first.
        let refused = answer(app.request(method, path)).await;
        refused.assert_problem(405, "method_not_allowed");
        assert_eq!(refused.header("allow"), allow, "{path}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_objects_are_problems() {
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
        answer(request.body(body.to_vec())).await.assert_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn what_is_not_declared_as_json_is_refused() {
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
async fn a_body_over_64_kibibytes_is_refused() {
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
async fn a_callers_request_id_is_kept_when_it_is_one() {
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
        "also when all is well"
    );
}

#[tokio::test]
async fn health_and_the_document_need_no_token() {
    let app = App::start().await;
    let get = async |path: &str| answer(app.client.get(format!("{}{path}", app.address))).await;
    assert_eq!(get("/livez").await.status, 200);
    let ready = get("/readyz").await;
    assert_eq!(ready.status, 200);
    let checks = json!({"database": "ok", "migrations": "ok", "livekit": "ok"});
    assert_eq!(ready.body, json!({"status": "ready", "checks": checks}));
    assert_eq!(get("/openapi.json").await.body["info"]["title"], "Greenroom");
}
