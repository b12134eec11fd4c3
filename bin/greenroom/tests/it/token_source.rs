//! LiveKit's token-source requests, in the forms in which its SDKs send them to the start.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, App, answer, claims};

const PAGE: &str = "https://app.example.com";

/// Fetches a token like an SDK that has the template in the URL of its endpoint.
async fn fetch(app: &App, template: &str, body: &Value) -> Answer {
    app.post(&format!("/api/v1/sessions/start?session_template_id={template}"), body).await
}

async fn greeter(app: &App) -> String {
    let settings =
        json!({"room_creation": "on_join", "agent_name": "greeter", "agent_required": false});
    app.create_template(settings).await
}

#[tokio::test]
async fn requests_of_sdks_start_sessions() {
    let app = App::start().await;
    let template = greeter(&app).await;
    for (sdk, body) in [
        ("Swift and Android, no options", json!({"room_config": {}})),
        (
            "Swift and Android, an agent",
            json!({"participant_name": "Ann", "participant_identity": "ann",
                   "participant_attributes": {"plan": "gold"},
                   "room_config": {"agents": [{"agent_name": "greeter"}]}}),
        ),
        (
            "older Android, in camel case",
            json!({"roomConfig": {"agents": [{"agentName": "greeter"}]}}),
        ),
        (
            "JavaScript, all protobuf fields",
            json!({"room_name": "", "participant_name": "", "participant_identity": "",
                   "participant_metadata": "", "participant_attributes": {},
                   "room_config": {"agents": [{"agent_name": "greeter", "metadata": ""}]}}),
        ),
        (
            "all kinds of empty values",
            json!({"roomName": null, "participantName": [], "participantIdentity": {},
                   "participantMetadata": null, "participantAttributes": [], "roomConfig": null}),
        ),
    ] {
        let started = fetch(&app, &template, &body).await;
        assert_eq!(started.status, 201, "{sdk}: {}", started.body);
        assert!(started.body["server_url"].is_string(), "{sdk}");
        assert!(started.body["participant_token"].is_string(), "{sdk}");
        assert_eq!(started.header("cache-control"), "no-store", "{sdk}");
    }
}

#[tokio::test]
async fn name_identity_and_attributes_are_in_first_and_fresh_token() {
    let app = App::start().await;
    let template = greeter(&app).await;
    let body = json!({"participantName": "Ann Ä.", "participantIdentity": "ann",
                      "participantAttributes": {"plan": "gold", "empty": ""}});
    let started = fetch(&app, &template, &body).await;
    assert_eq!(started.status, 201, "{}", started.body);
    assert_eq!(started.body["participant_identity"], "ann");
    let fresh = app.post(&format!("{}/token", started.header("location")), &json!({})).await;
    assert_eq!(fresh.status, 200, "{}", fresh.body);
    for answered in [&started.body, &fresh.body] {
        let claims = claims(answered["participant_token"].as_str().unwrap());
        assert_eq!((&claims["sub"], &claims["name"]), (&json!("ann"), &json!("Ann Ä.")));
        assert_eq!(claims["attributes"], json!({"plan": "gold", "empty": ""}));
    }
    assert_eq!(app.get(started.header("location")).await.body["user_id"], "ann");
    let unnamed = fetch(&app, &template, &json!({"participant_identity": "ben"})).await;
    let claims = claims(unnamed.body["participant_token"].as_str().unwrap());
    assert_eq!(claims["name"], "ben", "the name defaults to the user id");
}

#[tokio::test]
async fn wrong_fields_are_refused_and_start_nothing() {
    let app = App::start().await;
    let template = greeter(&app).await;
    let many: Value = (0..33).map(|number| (format!("k{number}"), json!("x"))).collect();
    for (body, field) in [
        (json!({"participant_name": "x".repeat(129)}), "participant_name"),
        (json!({"participant_name": "a\u{0}b"}), "participant_name"),
        (json!({"participantName": 7}), "participant_name"),
        (json!({"participant_identity": "€".repeat(86)}), "participant_identity"),
        (json!({"participant_identity": ["ann"]}), "participant_identity"),
        (json!({"user_id": "ann", "participant_identity": "ben"}), "participant_identity"),
        (json!({"participant_attributes": {"lk.agent.state": "ready"}}), "participant_attributes"),
        (json!({"participant_attributes": many}), "participant_attributes"),
        (json!({"participant_attributes": {"k": "x".repeat(2048)}}), "participant_attributes"),
        (json!({"participant_attributes": {"k": "a\u{0}b"}}), "participant_attributes"),
        (json!({"participantAttributes": {"k": 1}}), "participant_attributes"),
        (json!({"participantAttributes": "gold"}), "participant_attributes"),
        (json!({"participant_name": "Ann", "participantName": "Ann"}), "participant_name"),
        (json!({"room_config": {}, "roomConfig": {}}), "room_config"),
    ] {
        let refused = fetch(&app, &template, &body).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), [field], "{}", refused.body);
    }
    for body in [
        json!({"room_name": "mine"}),
        json!({"roomName": 7}),
        json!({"participant_metadata": "{}"}),
        json!({"participantMetadata": {"a": 1}}),
        json!({"room_config": {"name": "mine"}}),
        json!({"room_config": {"max_participants": 2}}),
        json!({"roomConfig": {"emptyTimeout": 60}}),
        json!({"room_config": {"agents": [{"agent_name": "other"}]}}),
        json!({"room_config": {"agents": [{"agent_name": "greeter", "metadata": "be rude"}]}}),
        json!({"room_config": {"agents": [{"agent_name": "greeter"}, {"agent_name": "greeter"}]}}),
        json!({"room_config": {"from_a_newer_sdk": true}}),
        json!({"room_config": "greeter"}),
    ] {
        fetch(&app, &template, &body).await.assert_problem(422, "not_configurable");
    }
    let without_agent = app.create_template(json!({"room_creation": "on_join"})).await;
    let body = json!({"room_config": {"agents": [{"agent_name": "greeter"}]}});
    fetch(&app, &without_agent, &body).await.assert_problem(422, "not_configurable");
    assert_eq!(app.get("/api/v1/sessions").await.body, json!([]));
}

#[tokio::test]
async fn end_user_cannot_name_another_user() {
    let app = App::start().await;
    let template = greeter(&app).await;
    let fetch = async |body: Value| {
        let url = format!("{}/api/v1/sessions/start?session_template_id={template}", app.address);
        answer(app.client.post(url).bearer_auth(app.user_token("ann")).json(&body)).await
    };
    for body in [json!({"participant_identity": "ben"}), json!({"participantIdentity": "ben"})] {
        fetch(body).await.assert_problem(403, "user_forbidden");
    }
    for body in [json!({"participant_identity": "ann"}), json!({"participant_name": "Ann"})] {
        let started = fetch(body).await;
        assert_eq!((started.status, &started.body["participant_identity"]), (201, &json!("ann")));
    }
}

#[tokio::test]
async fn token_over_6_kib_is_refused() {
    let app = App::start().await;
    let long = json!({"user_id": "\"".repeat(128), "participant_name": "ä".repeat(128),
                      "participant_attributes": {"k": "x".repeat(1_000)}});
    let panels: Vec<_> = (0..32).map(|number| format!("{number:032}")).collect();
    let settings = json!({"room_creation": "on_join", "agent_name": "\"".repeat(64),
                          "agent_required": false, "enabled_panels": panels});
    let (longest, short) =
        (app.create_template(settings).await, app.create_template(json!({})).await);
    let refused = fetch(&app, &longest, &long).await;
    refused.assert_problem(400, "invalid_request");
    assert_eq!(refused.fields(), ["user_id", "participant_name", "participant_attributes"]);
    assert_eq!(app.get("/api/v1/sessions").await.body, json!([]), "no session was stored");
    // A request that is short enough to skip the length check fits with any template.
    let unchecked = json!({"user_id": "\"".repeat(30), "participant_name": "ä".repeat(55),
                           "participant_attributes": {"k": "x".repeat(900)}});
    for (template, body) in [(&short, &long), (&longest, &unchecked)] {
        let started = fetch(&app, template, body).await;
        assert_eq!(started.status, 201, "{}", started.body);
        let length = started.body["participant_token"].as_str().unwrap().len();
        assert!((3_000..=6_144).contains(&length), "{length}");
    }
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_fetch() {
    let app = App::with(&[("GREENROOM_CORS_ORIGINS", PAGE)]).await;
    let template = greeter(&app).await;
    let url = format!("{}/api/v1/sessions/start?session_template_id={template}", app.address);
    for (origin, allowed) in [(PAGE, PAGE), ("https://evil.example", "")] {
        let preflight = app.client.request(Method::OPTIONS, &url).header("origin", origin);
        let preflight = preflight
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        let answered = answer(preflight).await;
        assert_eq!(answered.header("access-control-allow-origin"), allowed, "{origin}");
        assert!(answered.status < 500, "{}", answered.body);
        let fetch = app.client.post(&url).bearer_auth(app.user_token("ann"));
        let answered =
            answer(fetch.header("origin", origin).json(&json!({"room_config": {}}))).await;
        assert_eq!(answered.header("access-control-allow-origin"), allowed, "{origin}");
        assert_eq!(answered.header("cache-control"), "no-store", "{origin}: {}", answered.body);
    }
}
