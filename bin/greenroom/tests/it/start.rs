//! `POST /api/v1/sessions/start`: its response, and the room and dispatches that it creates.

use greenroom_testkit::caller;
use greenroom_testkit::livekit::Server;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{AUTH_SECRET, Answer, App, answer, claims, uuid};

const START: &str = "/api/v1/sessions/start";

#[tokio::test]
async fn start_returns_session_and_token() {
    let app = App::start().await;
    let template = app
        .create_template(
            json!({"modality_profile": "text+audio", "enabled_panels": ["chat", "notes"]}),
        )
        .await;
    let Answer { status, headers, body, .. } =
        app.start_session(&template, json!({"user_id": "ann", "metadata": {"order": 42}})).await;
    assert_eq!(status, 201, "{body}");
    let id = body["session_id"].as_str().unwrap();
    assert_eq!(headers["location"], format!("/api/v1/sessions/{id}"));
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(body["participant_identity"], "ann");
    assert_eq!(body["livekit_url"], Server::shared().await.unwrap().url());
    assert_eq!(body["server_url"], body["livekit_url"]);
    assert_eq!(body["participant_token"], body["access_token"]);
    let keys = body.as_object().unwrap().len();
    assert_eq!(keys, 9, "{body}");

    let claims = claims(body["access_token"].as_str().unwrap());
    let expiry: chrono::DateTime<chrono::Utc> =
        body["token_expiry"].as_str().unwrap().parse().unwrap();
    assert_eq!(claims["exp"], expiry.timestamp(), "to the second");
    assert_eq!(claims["video"]["room"], body["room_name"]);
    assert_eq!(claims["video"]["canPublishSources"], json!(["microphone"]));
    let metadata: Value = serde_json::from_str(claims["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(
        metadata,
        json!({"session_id": id, "session_template_id": template, "user_id": "ann",
               "modality_profile": "audio+text", "enabled_panels": ["chat", "notes"]})
    );
}

#[tokio::test]
async fn start_creates_room_and_dispatches_agent() {
    let app = App::start().await;
    let livekit = Server::shared().await.unwrap();
    let agent = format!("agent-{}", uuid());
    let template =
        app.create_template(json!({"agent_name": agent, "agent_metadata": {"prompt": "be kind"}, "reconnect_window_seconds": 45})).await;
    let started = app
        .start_session(&template, json!({"user_id": "ann", "metadata": {"order": 42}}))
        .await
        .body;
    let room_name = started["room_name"].as_str().unwrap();

    let room = livekit.room(room_name).await.unwrap().expect("the room exists before the 201");
    assert_eq!(room.departure_timeout, 45);
    assert!((605..=611).contains(&room.empty_timeout), "{}", room.empty_timeout);
    let dispatches = livekit.dispatches(room_name).await.unwrap();
    assert_eq!(dispatches.len(), 1);
    assert_eq!(dispatches[0].agent_name, agent);
    let metadata: Value = serde_json::from_str(&dispatches[0].metadata).unwrap();
    assert_eq!(
        metadata,
        json!({"session_id": started["session_id"], "organization_id": app.organization.to_string(),
               "session_template_id": template, "user_id": "ann", "modality_profile": null,
               "enabled_panels": null, "metadata": {"order": 42}, "agent_metadata": {"prompt": "be kind"}})
    );
    let session = app
        .get(&format!("/api/v1/sessions/{}", started["session_id"].as_str().unwrap()))
        .await
        .body;
    assert_eq!(
        (&session["status"], &session["agent_status"]),
        (&json!("pending"), &json!("dispatched"))
    );
}

#[tokio::test]
async fn room_without_agent_gets_reserved_dispatch() {
    let app = App::start().await;
    let template = app.create_template(json!({})).await;
    let started = app.start_session(&template, json!({})).await.body;
    let dispatches = Server::shared()
        .await
        .unwrap()
        .dispatches(started["room_name"].as_str().unwrap())
        .await
        .unwrap();
    let names: Vec<_> = dispatches.iter().map(|dispatch| dispatch.agent_name.as_str()).collect();
    assert_eq!(names, ["greenroom.none"]);
    let session = app
        .get(&format!("/api/v1/sessions/{}", started["session_id"].as_str().unwrap()))
        .await
        .body;
    assert_eq!(session["agent_status"], "none");
}

#[tokio::test]
async fn on_join_does_not_call_livekit_and_names_agent_in_token() {
    // No server listens on this port.
    let app = App::with(&[("LIVEKIT_API_URL", "http://127.0.0.1:9")]).await;
    let template = app
        .create_template(
            json!({"room_creation": "on_join", "agent_name": "greeter", "agent_required": false}),
        )
        .await;
    let started =
        app.start_session(&template, json!({"user_id": "ann", "metadata": {"secret": 1}})).await;
    assert_eq!(started.status, 201, "{}", started.body);
    let claims = claims(started.body["access_token"].as_str().unwrap());
    let agents = &claims["roomConfig"]["agents"];
    assert_eq!(agents[0]["agentName"], "greeter");
    let metadata: Value = serde_json::from_str(agents[0]["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(
        metadata,
        json!({"session_id": started.body["session_id"], "organization_id": app.organization.to_string(),
               "session_template_id": template, "user_id": "ann"}),
        "the user can read the token, so it has no private data"
    );
    let session = app.get(started.header("location")).await.body;
    assert_eq!(
        (&session["agent_status"], &session["metadata"]),
        (&json!("waiting"), &json!({"secret": 1}))
    );
}

#[tokio::test]
async fn guest_gets_generated_identity() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let identity =
        app.start_session(&template, json!({})).await.body["participant_identity"].clone();
    let digits = identity.as_str().unwrap().strip_prefix("guest-").unwrap();
    assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{identity}");
}

#[tokio::test]
async fn template_token_ttl_takes_precedence_over_server_ttl() {
    let app = App::with(&[("LIVEKIT_TOKEN_TTL_SECONDS", "120")]).await;
    for (settings, ttl) in [
        (json!({"room_creation": "on_join"}), 120),
        (json!({"room_creation": "on_join", "token_ttl_seconds": 900}), 900),
    ] {
        let template = app.create_template(settings).await;
        let started = app.start_session(&template, json!({})).await.body;
        let claims = claims(started["access_token"].as_str().unwrap());
        let lifetime = claims["exp"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap();
        // `nbf` is ten seconds before the current time, truncated to a second.
        assert!((ttl + 10..=ttl + 11).contains(&lifetime), "{lifetime}");
    }
}

#[tokio::test]
async fn template_may_be_in_query() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let path = format!("{START}?session_template_id={template}");
    assert_eq!(answer(app.request(Method::POST, &path)).await.status, 201, "without a body");
    assert_eq!(app.post(&path, &json!({})).await.status, 201);
    assert_eq!(app.post(&path, &json!({"session_template_id": template})).await.status, 201);
    let refused = app.post(&path, &json!({"session_template_id": uuid()})).await;
    refused.assert_problem(400, "invalid_request");
    assert_eq!(refused.fields(), ["session_template_id"]);
}

#[tokio::test]
async fn unknown_fields_are_ignored() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let body = json!({"from_a_newer_sdk": [1, 2, 3]});
    assert_eq!(app.start_session(&template, body).await.status, 201);
}

#[tokio::test]
async fn start_requires_template_of_own_organization() {
    let app = App::start().await;
    app.start_session(&uuid().to_string(), json!({}))
        .await
        .assert_problem(404, "template_not_found");
    let other_organization = caller::backend_token(AUTH_SECRET, uuid());
    let create = app.client.post(format!("{}/api/v1/session-templates", app.address));
    let create = create.bearer_auth(other_organization).json(&json!({"name": "foreign"}));
    let foreign = answer(create).await.body["id"].clone();
    app.start_session(foreign.as_str().unwrap(), json!({}))
        .await
        .assert_problem(403, "template_forbidden");
}

#[tokio::test]
async fn all_wrong_values_are_reported_at_once() {
    let app = App::start().await;
    let body =
        json!({"session_template_id": "42", "user_id": "", "metadata": {"k": "x".repeat(4096)}});
    let refused = app.post(START, &body).await;
    refused.assert_problem(400, "invalid_request");
    assert_eq!(refused.fields(), ["session_template_id", "user_id", "metadata"]);
    for (body, field) in [
        (json!({}), "session_template_id"),
        (json!({"session_template_id": 42}), "session_template_id"),
        (json!({"session_template_id": uuid(), "user_id": ["ann"]}), "user_id"),
        (json!({"session_template_id": uuid(), "user_id": "a\u{0}b"}), "user_id"),
        (json!({"session_template_id": uuid(), "user_id": "€".repeat(86)}), "user_id"),
        (json!({"session_template_id": uuid(), "metadata": []}), "metadata"),
        (json!({"session_template_id": uuid(), "metadata": {"a": {"b": "\u{0}"}}}), "metadata"),
    ] {
        let refused = app.post(START, &body).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), [field], "{}", refused.body);
    }
}
