//! `wait_for`: responses that are held until the session is in a state.

use std::time::{Duration, Instant};

use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::Server;
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::app::{App, answer, uuid};

#[tokio::test]
async fn settled_wait_returns_at_once() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let session = app.start_session(&template, json!({})).await.header("location").to_owned();
    let at_once = async |query: &str| {
        let before = Instant::now();
        let answered = app.get(&format!("{session}?{query}")).await;
        assert_eq!(answered.status, 200, "{query}: {}", answered.body);
        assert!(before.elapsed() < Duration::from_secs(2), "{query}: {:?}", before.elapsed());
        answered.body
    };
    // The template names no agent, so `agent_ready` cannot be reached.
    assert_eq!(at_once("wait_for=agent_ready").await["status"], "pending");
    assert_eq!(app.post(&format!("{session}/end"), &json!({})).await.status, 200);
    for condition in ["agent_ready", "active", "ended"] {
        let query = format!("wait_for={condition}&timeout_seconds=30");
        assert_eq!(at_once(&query).await["status"], "ended");
    }
}

#[tokio::test]
async fn wait_returns_when_another_request_ends_the_session() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let session = app.start_session(&template, json!({})).await.header("location").to_owned();
    for condition in ["active", "ended"] {
        let session = app.start_session(&template, json!({})).await.header("location").to_owned();
        let path = format!("{session}?wait_for={condition}&timeout_seconds=9");
        let mut waiting = Box::pin(app.get(&path));
        let early = timeout(Duration::from_secs(1), &mut waiting).await;
        assert!(early.is_err(), "the wait for {condition} returned early");
        let ended = Instant::now();
        assert_eq!(app.post(&format!("{session}/end"), &json!({})).await.status, 200);
        let answered = waiting.await;
        assert_eq!((answered.status, &answered.body["status"]), (200, &json!("ended")));
        assert!(ended.elapsed() < Duration::from_secs(3), "{condition}: {:?}", ended.elapsed());
    }
    assert_eq!(app.get(&session).await.body["status"], "pending", "the other session is not ended");
}

#[tokio::test]
async fn wait_times_out_with_current_session() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let session = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = session.header("location");
    let plain = app.get(session).await.body;
    for seconds in [1, 2] {
        let before = Instant::now();
        let path = format!("{session}?wait_for=ended&timeout_seconds={seconds}");
        let answered = app.request_as("ann", Method::GET, &path).await;
        assert_eq!((answered.status, &answered.body), (200, &plain));
        let waited = before.elapsed().as_secs_f32();
        let timeout = Duration::from_secs(seconds).as_secs_f32();
        assert!((timeout - 0.05..timeout + 1.5).contains(&waited), "{waited} s, not {seconds} s");
    }
}

#[tokio::test]
async fn wait_returns_when_agent_is_ready() {
    let livekit = Server::shared().await.unwrap();
    let agent = format!("greeter-{}", uuid());
    let _worker = Worker::start(livekit, &agent).await.unwrap();
    let app = App::start().await;
    let template = app.create_template(json!({"agent_name": agent})).await;
    let session = app.start_session(&template, json!({})).await.header("location").to_owned();
    let path = format!("{session}?wait_for=agent_ready");
    let request = app.request(Method::GET, &path).timeout(Duration::from_secs(35));
    let answered = answer(request).await;
    assert_eq!(
        (&answered.body["agent_status"], &answered.body["status"]),
        (&json!("ready"), &json!("pending")),
        "{}",
        answered.body
    );
}

#[tokio::test]
async fn wait_for_invisible_session_is_refused_at_once() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let anns = app.start_session(&template, json!({"user_id": "ann"})).await;
    let before = Instant::now();
    for session in [anns.header("location"), &format!("/api/v1/sessions/{}", uuid())] {
        let path = format!("{session}?wait_for=ended");
        app.request_as("ben", Method::GET, &path).await.assert_problem(404, "session_not_found");
    }
    assert!(before.elapsed() < Duration::from_secs(4), "it took {:?}", before.elapsed());
}

#[tokio::test]
async fn wrong_wait_parameters_are_reported_by_name() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let session = app.start_session(&template, json!({})).await.header("location").to_owned();
    for (query, fields) in [
        ("wait_for=", vec!["wait_for"]),
        ("wait_for=pending", vec!["wait_for"]),
        ("wait_for=Ended", vec!["wait_for"]),
        ("wait_for=ended&timeout_seconds=0", vec!["timeout_seconds"]),
        ("wait_for=ended&timeout_seconds=31", vec!["timeout_seconds"]),
        ("wait_for=ended&timeout_seconds=-1", vec!["timeout_seconds"]),
        ("wait_for=ended&timeout_seconds=1.5", vec!["timeout_seconds"]),
        ("wait_for=ended&timeout_seconds=", vec!["timeout_seconds"]),
        ("wait_for=late&timeout_seconds=x", vec!["wait_for", "timeout_seconds"]),
        ("timeout_seconds=5", vec!["timeout_seconds"]),
        ("wait_for=ended&wait_for=active", vec!["query"]),
    ] {
        let refused = app.get(&format!("{session}?{query}")).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), fields, "{query}");
    }
}
