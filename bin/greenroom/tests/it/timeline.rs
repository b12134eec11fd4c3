//! The timeline of a session.

use greenroom_testkit::caller;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{AUTH_SECRET, App, answer, assert_in_order, uuid};

#[tokio::test]
async fn timeline_lists_events_oldest_first() {
    let app = App::start().await;
    let template = app.create_template(json!({"agent_name": "absent-agent"})).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location");
    let before = app.events(session).await;
    assert_in_order(&before, &["created", "room_created"]);
    assert!(before.contains(&"agent_dispatched".to_owned()), "{before:?}");
    assert!(!before.contains(&"ended".to_owned()), "{before:?}");
    for path in ["token", "end"] {
        let answered = app.post(&format!("{session}/{path}"), &json!({})).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
    }
    let expected = ["created", "room_created", "token_refreshed", "end_requested", "ended"];
    assert_in_order(&app.events(session).await, &expected);

    let timeline = app.get(&format!("{session}/timeline")).await.body;
    let at = |entry: &Value| entry["at"].as_str().unwrap().parse().unwrap();
    let times: Vec<chrono::DateTime<chrono::Utc>> =
        timeline.as_array().unwrap().iter().map(at).collect();
    assert!(times.is_sorted(), "{timeline}");
    let document: Value =
        serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let events = &document["components"]["schemas"]["TimelineEntry"]["properties"]["event"]["enum"];
    for entry in timeline.as_array().unwrap() {
        assert_eq!(entry.as_object().unwrap().len(), 3, "{entry}");
        assert!(entry["at"].as_str().unwrap().ends_with('Z'), "{entry}");
        assert!(entry["detail"].is_object(), "{entry}");
        assert!(events.as_array().unwrap().contains(&entry["event"]), "{entry}");
    }
}

#[tokio::test]
async fn end_user_sees_events_without_detail() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let anns = app.start_session(&template, json!({"user_id": "ann"})).await;
    let path = format!("{}/timeline", anns.header("location"));
    let complete = app.get(&path).await.body;
    let seen = app.request_as("ann", Method::GET, &path).await;
    assert_eq!(seen.status, 200, "{}", seen.body);
    let seen = seen.body.as_array().unwrap();
    assert!(!seen.is_empty() && seen.len() == complete.as_array().unwrap().len(), "{seen:?}");
    for (seen, complete) in seen.iter().zip(complete.as_array().unwrap()) {
        let expected = json!({"at": complete["at"], "event": complete["event"], "detail": null});
        assert_eq!(*seen, expected);
    }
    app.request_as("ben", Method::GET, &path).await.assert_problem(404, "session_not_found");
}

#[tokio::test]
async fn timeline_of_other_organization_is_not_found() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let started = app.start_session(&template, json!({})).await;
    let path = format!("{}/timeline", started.header("location"));
    let other_organization = caller::backend_token(AUTH_SECRET, uuid());
    let request = app.client.get(format!("{}{path}", app.address)).bearer_auth(other_organization);
    answer(request).await.assert_problem(404, "session_not_found");
    let missing = format!("/api/v1/sessions/{}/timeline", uuid());
    app.get(&missing).await.assert_problem(404, "session_not_found");
    let wrong = app.get("/api/v1/sessions/42/timeline").await;
    wrong.assert_problem(400, "invalid_request");
    assert_eq!(wrong.fields(), ["session_id"]);
}
