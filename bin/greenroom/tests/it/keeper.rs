//! The keeper (the loop that reconciles sessions with LiveKit) works without webhooks.

use std::time::Duration;

use greenroom_testkit::livekit::Server;
use greenroom_testkit::wait_until;
use serde_json::{Value, json};

use crate::app::{App, assert_in_order, join_for};

#[tokio::test]
async fn join_and_departure_are_observed_without_webhooks() {
    let app = App::with(&[("GREENROOM_RECONCILE_SECONDS", "1")]).await;
    let template = app.create_template(json!({"reconnect_window_seconds": 5})).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let pending = app.get(&session).await.body;
    assert_eq!((&pending["status"], &pending["started_at"]), (&json!("pending"), &Value::Null));

    let ann = join_for(&started.body, Duration::from_secs(12));
    let active = app.wait_for_status(&session, "active", Duration::from_secs(20)).await;
    assert!(active["started_at"].is_string() && active["ended_at"].is_null(), "{active}");
    assert!(ann.await.unwrap().unwrap().connected);

    let ended = app.wait_for_status(&session, "ended", Duration::from_secs(40)).await;
    assert_eq!(ended["end_reason"], "user_left", "{ended}");
    assert_eq!(ended["started_at"], active["started_at"]);
    assert!(ended["ended_at"].as_str() > ended["started_at"].as_str(), "{ended}");
    let expected = ["created", "room_created", "user_joined", "user_left", "ended"];
    assert_in_order(&app.events(&session).await, &expected);
}

#[tokio::test]
async fn session_without_user_expires_and_its_room_is_deleted() {
    let app = App::start().await;
    let livekit = Server::shared().await.unwrap();
    // The minimum.
    let template = app.create_template(json!({"join_window_seconds": 30})).await;
    let started = app.start_session(&template, json!({})).await;
    let session = started.header("location").to_owned();
    let room = started.body["room_name"].as_str().unwrap();
    assert!(livekit.room(room).await.unwrap().is_some(), "precondition");
    let expired = app.wait_for_status(&session, "expired", Duration::from_secs(45)).await;
    assert_eq!(
        (&expired["end_reason"], &expired["started_at"]),
        (&json!("join_window"), &Value::Null)
    );
    assert!(
        expired["ended_at"].as_str() >= expired["join_by"].as_str(),
        "expired too early: {expired}"
    );
    assert_in_order(&app.events(&session).await, &["created", "room_created", "expired"]);
    wait_until("the room to be deleted", Duration::from_secs(10), async || {
        Ok(livekit.room(room).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    app.post(&format!("{session}/token"), &json!({})).await.assert_problem(409, "session_over");
}
