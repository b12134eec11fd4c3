//! The keeper beside the server: what happens to sessions though nobody tells.

use std::time::Duration;

use greenroom_testkit::livekit::Server;
use greenroom_testkit::wait_until;
use serde_json::{Value, json};

use crate::app::{App, assert_in_order, stay};

#[tokio::test]
async fn a_user_who_comes_and_goes_is_noticed_without_any_webhook() {
    let app = App::with(&[("GREENROOM_RECONCILE_SECONDS", "1")]).await;
    let template = app.template(json!({"reconnect_window_seconds": 5})).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let pending = app.get(&session).await.body;
    assert_eq!((&pending["status"], &pending["started_at"]), (&json!("pending"), &Value::Null));

    let ann = stay(&started.body, Duration::from_secs(12));
    let active = app.becomes(&session, "active", Duration::from_secs(20)).await;
    assert!(active["started_at"].is_string() && active["ended_at"].is_null(), "{active}");
    assert!(ann.await.unwrap().unwrap().connected);

    let ended = app.becomes(&session, "ended", Duration::from_secs(40)).await;
    assert_eq!(ended["end_reason"], "user_left", "{ended}");
    assert_eq!(ended["started_at"], active["started_at"]);
    assert!(ended["ended_at"].as_str() > ended["started_at"].as_str(), "{ended}");
    let expected = ["created", "room_created", "user_joined", "user_left", "ended"];
    assert_in_order(&app.events(&session).await, &expected);
}

#[tokio::test]
async fn a_session_nobody_joins_expires_and_its_room_goes() {
    let app = App::start().await;
    let livekit = Server::shared().await.unwrap();
    // The shortest there is.
    let template = app.template(json!({"join_window_seconds": 30})).await;
    let started = app.start_session(&template, json!({})).await;
    let session = started.header("location").to_owned();
    let room = started.body["room_name"].as_str().unwrap();
    assert!(livekit.room(room).await.unwrap().is_some(), "the control");
    let expired = app.becomes(&session, "expired", Duration::from_secs(45)).await;
    assert_eq!(
        (&expired["end_reason"], &expired["started_at"]),
        (&json!("join_window"), &Value::Null)
    );
    assert!(expired["ended_at"].as_str() >= expired["join_by"].as_str(), "not too soon: {expired}");
    assert_in_order(&app.events(&session).await, &["created", "room_created", "expired"]);
    wait_until("the room to go", Duration::from_secs(10), async || {
        Ok(livekit.room(room).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    app.post(&format!("{session}/token"), &json!({})).await.assert_problem(409, "session_over");
}
