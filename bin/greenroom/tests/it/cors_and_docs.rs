//! Requests of browsers: CORS, and the page of the API documentation.

use reqwest::Method;
use serde_json::json;

use crate::app::{Answer, App, answer, uuid};

const PAGE: &str = "https://app.example.com";

async fn preflight(app: &App, origin: &str, method: &str, headers: &str) -> Answer {
    let request =
        app.client.request(Method::OPTIONS, format!("{}/api/v1/sessions/start", app.address));
    let request = request
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", headers);
    answer(request).await
}

#[tokio::test]
async fn pages_of_configured_origins_may_call() {
    let app =
        App::with(&[("GREENROOM_CORS_ORIGINS", "http://localhost:3000, https://app.example.com")])
            .await;
    for origin in ["http://localhost:3000", PAGE] {
        let headers = "authorization, content-type, idempotency-key, x-request-id";
        let allowed = preflight(&app, origin, "POST", headers).await;
        assert_eq!(allowed.status, 200, "{}", allowed.body);
        assert_eq!(allowed.header("access-control-allow-origin"), origin);
        let headers = allowed.header("access-control-allow-headers").to_lowercase();
        assert!(
            headers.contains("authorization") && headers.contains("idempotency-key"),
            "{headers}"
        );
        assert!(allowed.header("access-control-allow-methods").contains("PATCH"));
        assert_eq!(allowed.header("access-control-allow-credentials"), "", "no cookies");
    }
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let start = app.request(Method::POST, "/api/v1/sessions/start").header("origin", PAGE);
    let started = answer(start.json(&json!({"session_template_id": template}))).await;
    assert_eq!(started.status, 201);
    assert_eq!(started.header("access-control-allow-origin"), PAGE);
    let exposed = started.header("access-control-expose-headers").to_lowercase();
    for header in [
        "location",
        "link",
        "retry-after",
        "x-request-id",
        "idempotent-replayed",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
    ] {
        assert!(exposed.contains(header), "{header} is not in {exposed}");
    }
    assert!(started.header("vary").to_lowercase().contains("origin"));
}

#[tokio::test]
async fn page_may_read_error_responses() {
    let app = App::with(&[("GREENROOM_CORS_ORIGINS", PAGE)]).await;
    let url = format!("{}/api/v1/sessions", app.address);
    let refused = answer(app.client.get(&url).header("origin", PAGE)).await;
    refused.assert_problem(401, "unauthenticated");
    assert_eq!(refused.header("access-control-allow-origin"), PAGE);
    let refused = answer(app.request(Method::GET, "/nowhere").header("origin", PAGE)).await;
    refused.assert_problem(404, "route_not_found");
    assert_eq!(refused.header("access-control-allow-origin"), PAGE);
}

#[tokio::test]
async fn other_origins_methods_and_headers_are_not_allowed() {
    let app = App::with(&[("GREENROOM_CORS_ORIGINS", PAGE)]).await;
    for origin in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "null",
    ] {
        let foreign = preflight(&app, origin, "POST", "authorization").await;
        assert_eq!(foreign.header("access-control-allow-origin"), "", "{origin}");
        let read =
            answer(app.request(Method::GET, "/api/v1/sessions").header("origin", origin)).await;
        assert_eq!(read.header("access-control-allow-origin"), "", "{origin}");
    }
    for (method, headers) in [("PUT", "authorization"), ("POST", "x-evil")] {
        let refused = preflight(&app, PAGE, method, headers).await;
        refused.assert_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn no_page_may_call_without_configured_origins() {
    let app = App::start().await;
    let refused = preflight(&app, PAGE, "POST", "authorization").await;
    assert_eq!(refused.header("access-control-allow-origin"), "");
    let read = answer(app.request(Method::GET, "/api/v1/sessions").header("origin", PAGE)).await;
    assert_eq!((read.status, read.header("access-control-allow-origin")), (200, ""));
}

#[tokio::test]
async fn documentation_page_loads_nothing_from_other_origins() {
    let app = App::start().await;
    let page = answer(app.client.get(format!("{}/docs", app.address))).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let html = page.body.as_str().unwrap();
    assert!(
        !html.contains("http://") && !html.contains("https://") && !html.contains("//cdn"),
        "{html}"
    );
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("script-src 'self';"),
        "{policy}"
    );
    let files: Vec<_> =
        html.split('"').filter(|part| part.starts_with("/docs/")).map(str::to_owned).collect();
    assert_eq!(files.len(), 4, "{html}");
    for file in files {
        let got = answer(app.client.get(format!("{}{file}", app.address))).await;
        assert_eq!(got.status, 200, "{file}");
        assert_eq!(got.header("x-content-type-options"), "nosniff");
    }
    for missing in [
        "/docs/index.html",
        "/docs/../Cargo.toml",
        "/docs/%2e%2e%2fetc",
        &format!("/docs/{}", uuid()),
    ] {
        let got = answer(app.client.get(format!("{}{missing}", app.address))).await;
        assert_eq!(got.status, 404, "{missing}");
    }
}
