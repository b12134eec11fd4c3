//! `Idempotency-Key`: repeated starts with the same key start one session.

use std::collections::HashSet;
use std::time::Duration;

use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::{caller, wait_until};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::app::{AUTH_SECRET, Answer, App, answer, claims, uuid};

const START: &str = "/api/v1/sessions/start";

const KEY: &str = "Idempotency-Key";

async fn start(app: &App, key: &str, body: &Value) -> Answer {
    answer(app.request(Method::POST, START).header(KEY, key).json(body)).await
}

/// Asserts that the response is a successful start, and whether it is a replay.
#[track_caller]
fn assert_started(answer: &Answer, replayed: bool) {
    assert_eq!(answer.status, 201, "{}", answer.body);
    let expected = if replayed { "true" } else { "" };
    assert_eq!(answer.header("idempotent-replayed"), expected);
}

async fn sessions(app: &App) -> Vec<Value> {
    app.get("/api/v1/sessions").await.body.as_array().unwrap().clone()
}

#[tokio::test]
async fn replay_returns_same_session_with_fresh_token() {
    let app = App::start().await;
    let agent = format!("agent-{}", uuid());
    let template = app.create_template(json!({"agent_name": agent})).await;
    let body =
        json!({"session_template_id": template, "user_id": "ann", "metadata": {"order": 42}});
    let first = start(&app, "order-42", &body).await;
    assert_started(&first, false);
    // Expiries are whole seconds, so wait until the expiry of a new token is later.
    let again = wait_until("a new token", Duration::from_secs(5), async || {
        let again = start(&app, "order-42", &body).await;
        assert_started(&again, true);
        let fresh = again.body["token_expiry"].as_str() > first.body["token_expiry"].as_str();
        Ok(fresh.then_some(again))
    });
    let again = again.await.unwrap();
    for field in ["session_id", "room_name", "participant_identity", "join_by", "server_url"] {
        assert_eq!(again.body[field], first.body[field], "{field}");
    }
    assert_eq!(again.body["participant_token"], again.body["access_token"]);
    for header in ["location", "cache-control"] {
        assert_eq!(again.header(header), first.header(header), "{header}");
    }
    let token = claims(again.body["access_token"].as_str().unwrap());
    let expiry: chrono::DateTime<chrono::Utc> =
        again.body["token_expiry"].as_str().unwrap().parse().unwrap();
    assert_eq!(token["exp"], expiry.timestamp());
    assert_eq!(token["sub"], "ann");

    let [session] = &sessions(&app).await[..] else { panic!("there is one session") };
    assert_eq!(
        session["token_expiry"], again.body["token_expiry"],
        "the latest expiry of all tokens"
    );
    let room = first.body["room_name"].as_str().unwrap();
    let dispatches = Server::shared().await.unwrap().dispatches(room).await.unwrap();
    assert_eq!(dispatches.len(), 1, "the agent was requested once: {dispatches:?}");
}

#[tokio::test]
async fn equivalent_request_is_replayed() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let send = async |path: &str, body: String| {
        let request = app.request(Method::POST, path).header(KEY, "k");
        answer(request.header("content-type", "application/json").body(body)).await
    };
    let first = format!(
        r#"{{"session_template_id": "{template}", "user_id": "ann", "metadata": {{"a": 1, "b": 2}}}}"#
    );
    let first = send(START, first).await;
    assert_started(&first, false);
    let in_query = format!("{START}?session_template_id={template}");
    let other = r#"{"metadata": {"b": 2, "a": 1}, "user_id": "ann", "from_a_newer_sdk": true}"#;
    let again = send(&in_query, other.to_owned()).await;
    assert_started(&again, true);
    assert_eq!(again.body["session_id"], first.body["session_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_concurrent_starts_with_one_key_start_one_session() {
    let app = App::start().await;
    let agent = format!("agent-{}", uuid());
    let template = app.create_template(json!({"agent_name": agent})).await;
    let body = json!({"session_template_id": template, "user_id": "ann"});
    let starts = (0..16).map(|_| start(&app, "at-once", &body));
    let answers = futures_util::future::join_all(starts).await;
    for answer in &answers {
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    let replayed = answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true");
    assert_eq!(replayed.count(), 15);
    for field in ["session_id", "room_name"] {
        let all: HashSet<_> = answers.iter().map(|answer| answer.body[field].as_str()).collect();
        assert_eq!(all.len(), 1, "{field}: {all:?}");
    }
    assert_eq!(sessions(&app).await.len(), 1);
    let livekit = Server::shared().await.unwrap();
    let room = answers[0].body["room_name"].as_str().unwrap();
    assert!(livekit.room(room).await.unwrap().is_some());
    let dispatches = livekit.dispatches(room).await.unwrap();
    assert_eq!(dispatches.len(), 1, "one agent was requested: {dispatches:?}");
}

#[tokio::test]
async fn different_request_with_same_key_is_refused() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let other = app.create_template(json!({"room_creation": "on_join"})).await;
    let body = json!({"session_template_id": template, "user_id": "ann", "metadata": {"order": 1}});
    let first = start(&app, "k", &body).await;
    assert_started(&first, false);
    for (field, value) in [
        ("session_template_id", json!(other)),
        ("user_id", json!("ben")),
        ("user_id", Value::Null),
        ("metadata", json!({"order": 2})),
        ("metadata", Value::Null),
        ("participant_name", json!("Ann")),
        ("participant_attributes", json!({"plan": "gold"})),
        ("room_config", json!({"agents": [{"agent_name": "greeter"}]})),
    ] {
        let mut changed = body.clone();
        changed[field] = value;
        start(&app, "k", &changed).await.assert_problem(422, "idempotency_key_reused");
    }
    let again = start(&app, "k", &body).await;
    assert_started(&again, true);
    assert_eq!(again.body["session_id"], first.body["session_id"]);
    assert_started(&start(&app, "K", &body).await, false);
    assert_eq!(sessions(&app).await.len(), 2, "a different key starts another session");
}

#[tokio::test]
async fn keys_of_different_callers_are_independent() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let start_by = async |token: &str, body: Value| {
        let request = app.client.post(format!("{}{START}", app.address)).bearer_auth(token);
        answer(request.header(KEY, "1").json(&body)).await
    };
    let foreign = caller::backend_token(AUTH_SECRET, uuid());
    let created =
        app.client.post(format!("{}/api/v1/session-templates", app.address)).bearer_auth(&foreign);
    let foreign_template = json!({"name": "foreign", "room_creation": "on_join"});
    let foreign_template = answer(created.json(&foreign_template)).await.body["id"].clone();
    let callers = [
        (app.token(), json!({"session_template_id": template, "user_id": "ann"})),
        (app.user_token("ann"), json!({"session_template_id": template})),
        (app.user_token("ben"), json!({"session_template_id": template})),
        (foreign, json!({"session_template_id": foreign_template, "user_id": "ann"})),
    ];
    let mut ids = HashSet::new();
    for (token, body) in &callers {
        let first = start_by(token, body.clone()).await;
        assert_started(&first, false);
        let again = start_by(token, body.clone()).await;
        assert_started(&again, true);
        assert_eq!(first.body["session_id"], again.body["session_id"]);
        ids.insert(first.body["session_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), callers.len(), "{ids:?}");
}

#[tokio::test]
async fn refused_start_does_not_use_up_the_key() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let body = |template: &str| json!({"session_template_id": template});
    start(&app, "k", &body(&uuid().to_string())).await.assert_problem(404, "template_not_found");
    start(&app, "k", &body("42")).await.assert_problem(400, "invalid_request");
    start(&app, "k", &json!({"session_template_id": template, "room_name": "mine"}))
        .await
        .assert_problem(422, "not_configurable");
    assert_started(&start(&app, "k", &body(&template)).await, false);
}

#[tokio::test]
async fn key_of_ended_session_is_refused() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let body = json!({"session_template_id": template});
    let first = start(&app, "k", &body).await;
    assert_started(&first, false);
    let ended = app.post(&format!("{}/end", first.header("location")), &json!({})).await;
    assert_eq!(ended.status, 200, "{}", ended.body);
    start(&app, "k", &body).await.assert_problem(409, "session_over");
    let other = start(&app, "k", &json!({"session_template_id": template, "user_id": "ann"})).await;
    other.assert_problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn replay_opens_the_room_after_livekit_failed() {
    let mut livekit = Server::start().await.unwrap();
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &[]).await;
    let template = app.create_template(json!({})).await;
    let body = json!({"session_template_id": template, "user_id": "ann"});
    livekit.stop().await.unwrap();
    for _ in 0..2 {
        start(&app, "k", &body).await.assert_problem(503, "livekit_unavailable");
    }
    let [pending] = &sessions(&app).await[..] else { panic!("there is one session") };
    assert_eq!((&pending["status"], &pending["end_reason"]), (&json!("pending"), &Value::Null));

    livekit.restart().await.unwrap();
    let opened = wait_until("the room to be opened", Duration::from_secs(10), async || {
        let again = start(&app, "k", &body).await;
        Ok((again.status != 503).then_some(again))
    });
    let opened = opened.await.unwrap();
    assert_started(&opened, true);
    assert_eq!(opened.body["session_id"], pending["id"]);
    let room = opened.body["room_name"].as_str().unwrap();
    assert!(livekit.room(room).await.unwrap().is_some(), "the room does not exist");
    assert_eq!(app.get(opened.header("location")).await.body["status"], "pending");
    assert_eq!(sessions(&app).await.len(), 1);
}

#[tokio::test]
async fn invalid_key_is_refused() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let body = json!({"session_template_id": template});
    let too_long = "k".repeat(256);
    for key in [&b""[..], b" ", b"a\tb", "schl\u{fc}ssel".as_bytes(), too_long.as_bytes()] {
        let key = HeaderValue::from_bytes(key).unwrap();
        let request = app.request(Method::POST, START).header(KEY, &key);
        let refused = answer(request.json(&body)).await;
        refused.assert_problem(400, "invalid_idempotency_key");
        assert!(!refused.body.to_string().contains("kkkk"), "the response contains the key");
    }
    let twice = app.request(Method::POST, START).header(KEY, "k").header(KEY, "k");
    answer(twice.json(&body)).await.assert_problem(400, "invalid_idempotency_key");
    assert!(sessions(&app).await.is_empty(), "nothing was started");
    for key in ["~", "a key of two words", &"k".repeat(255)] {
        assert_started(&start(&app, key, &body).await, false);
    }
}
