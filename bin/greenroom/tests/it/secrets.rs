//! Secrets must not appear in the log at any level.

use greenroom_testkit::livekit::Server;
use reqwest::Method;
use serde_json::json;

use crate::app::{AUTH_SECRET, App, answer};

const KEY: &str = "secret-idempotency-key";

#[tokio::test]
async fn no_secret_is_logged_even_at_trace() {
    for format in ["text", "json"] {
        let app = App::with(&[("GREENROOM_LOG", "trace"), ("GREENROOM_LOG_FORMAT", format)]).await;
        let caller = app.token();
        let template = app.create_template(json!({"agent_name": "absent-agent"})).await;
        let user = "secret-user-id";
        let started = app.start_session(&template, json!({"user_id": user})).await;
        assert_eq!(started.status, 201);
        assert_eq!(app.get("/api/v1/sessions?user_id=ann").await.status, 200);
        let keyed =
            app.request(Method::POST, "/api/v1/sessions/start").header("Idempotency-Key", KEY);
        let keyed = answer(keyed.json(&json!({"session_template_id": template}))).await;
        assert_eq!(keyed.status, 201, "{}", keyed.body);
        let wrong = app.request(Method::POST, "/webhooks/livekit").body("{}");
        answer(wrong).await.assert_problem(401, "unauthenticated");
        app.get("/nowhere").await.assert_problem(404, "route_not_found");

        let log = app.process.output();
        assert!(log.contains("TRACE"), "control: the log has trace events");
        let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
        let password = app.database_password();
        for (what, secret) in [
            ("the caller's token", signature(&caller)),
            ("the join token", signature(started.body["access_token"].as_str().unwrap())),
            ("LiveKit's secret", Server::shared().await.unwrap().api_secret().to_owned()),
            ("the secret of callers' tokens", AUTH_SECRET.to_owned()),
            ("the database's password", password),
            ("the user", user.to_owned()),
            ("the idempotency key", KEY.to_owned()),
            ("any token", "eyJ".to_owned()),
        ] {
            assert!(
                !secret.is_empty() && !log.contains(&secret),
                "the {format} log contains {what}"
            );
        }
    }
}
