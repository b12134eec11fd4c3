//! `POST /api/v1/sessions/{session_id}/end`.

use std::time::{Duration, Instant};

use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, answer, assert_in_order, join_for, uuid};

/// Waits until the room no longer exists.
async fn wait_until_deleted(livekit: &Server, room: &str, limit: Duration) {
    wait_until("the room to be deleted", limit, async || {
        Ok(livekit.room(room).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn end_deletes_the_room_and_is_idempotent() {
    let app = App::with(&[("GREENROOM_RECONCILE_SECONDS", "1")]).await;
    let livekit = Server::shared().await.unwrap();
    let template = app.create_template(json!({})).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let room = started.body["room_name"].as_str().unwrap();
    let ann = join_for(&started.body, Duration::from_secs(12));
    app.wait_for_status(&session, "active", Duration::from_secs(20)).await;
    assert!(livekit.room(room).await.unwrap().is_some(), "precondition");

    let path = format!("{session}/end");
    let ended = answer(app.request(Method::POST, &path)).await;
    assert_eq!(ended.status, 200, "{}", ended.body);
    assert_eq!(
        (&ended.body["status"], &ended.body["end_reason"]),
        (&json!("ended"), &json!("requested"))
    );
    assert!(ended.body["started_at"].is_string() && ended.body["ended_at"].is_string());
    assert_eq!(ended.body["room_name"], started.body["room_name"]);
    wait_until_deleted(livekit, room, Duration::from_secs(10)).await;

    assert_eq!(app.post(&path, &json!({})).await.body, ended.body, "ended again");
    assert_eq!(app.get(&session).await.body, ended.body);
    let expected = ["created", "user_joined", "end_requested", "ended"];
    assert_in_order(&app.events(&session).await, &expected);
    assert!(ann.await.unwrap().unwrap().connected);
}

#[tokio::test]
async fn session_without_user_ends_without_started_at() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let session = app.start_session(&template, json!({})).await.header("location").to_owned();
    let ended = app.post(&format!("{session}/end"), &json!({})).await.body;
    assert_eq!((&ended["status"], &ended["started_at"]), (&json!("ended"), &Value::Null));
    assert_eq!(app.get("/api/v1/sessions?status=pending").await.body, json!([]));
}

#[tokio::test]
async fn end_does_not_wait_for_livekit() {
    let livekit = Server::start().await.unwrap();
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &[]).await;
    let template = app.create_template(json!({})).await;
    let started = app.start_session(&template, json!({})).await;
    let room = started.body["room_name"].as_str().unwrap();
    livekit.pause().unwrap();
    let before = Instant::now();
    let ended = app.post(&format!("{}/end", started.header("location")), &json!({})).await;
    assert_eq!((ended.status, &ended.body["status"]), (200, &json!("ended")), "{}", ended.body);
    assert!(before.elapsed() < Duration::from_secs(5), "it took {:?}", before.elapsed());
    livekit.resume().unwrap();
    wait_until_deleted(&livekit, room, Duration::from_secs(30)).await;
}

#[tokio::test]
async fn end_user_ends_only_own_sessions() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let anns =
        app.start_session(&template, json!({"user_id": "ann", "metadata": {"order": 42}})).await;
    let session = anns.header("location");
    let path = format!("{session}/end");
    app.request_as("ben", Method::POST, &path).await.assert_problem(404, "session_not_found");
    assert_eq!(app.get(session).await.body["status"], "pending", "ben has not ended it");
    let ended = app.request_as("ann", Method::POST, &path).await;
    assert_eq!((ended.status, &ended.body["status"]), (200, &json!("ended")));
    assert_eq!(ended.body["metadata"], Value::Null, "end users do not see metadata");
    let again = app.post(&path, &json!({})).await;
    assert_eq!(again.body["metadata"], json!({"order": 42}), "the backend sees it");
    let missing = format!("/api/v1/sessions/{}/end", uuid());
    app.post(&missing, &json!({})).await.assert_problem(404, "session_not_found");
}

#[tokio::test]
async fn body_is_ignored_but_limited_to_64_kib() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let session = app.start_session(&template, json!({})).await.header("location").to_owned();
    for path in [format!("{session}/token"), format!("{session}/end")] {
        for (content_type, body) in
            [("application/json", "{\"user_id\": 7}"), ("text/plain", "{"), ("", "[]")]
        {
            let request = app.request(Method::POST, &path).header("content-type", content_type);
            let answered = answer(request.body(body)).await;
            assert_eq!(answered.status, 200, "{path} {body}: {}", answered.body);
        }
        let large = |bytes: usize| app.request(Method::POST, &path).body("x".repeat(bytes));
        assert_eq!(answer(large(64 * 1024)).await.status, 200, "{path}");
        answer(large(64 * 1024 + 1)).await.assert_problem(413, "body_too_large");
    }
}
