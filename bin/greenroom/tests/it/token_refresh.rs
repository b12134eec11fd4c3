//! New join tokens: `POST /api/v1/sessions/{session_id}/token`.

use std::time::Duration;

use greenroom_testkit::user::User;
use greenroom_testkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, answer, assert_in_order, claims, uuid};

/// The claims of a token without its times.
fn claims_without_times(token: &Value) -> Value {
    let mut claims = json!(claims(token.as_str().unwrap()));
    for time in ["exp", "nbf"] {
        claims.as_object_mut().unwrap().remove(time);
    }
    // `emptyTimeout` is the time that is left until `join_by`.
    claims["roomConfig"].as_object_mut().unwrap().remove("emptyTimeout");
    claims
}

#[tokio::test]
async fn fresh_token_admits_to_same_room_and_expires_later() {
    let app = App::start().await;
    let template =
        app.create_template(json!({"modality_profile": "audio", "token_ttl_seconds": 90})).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let path = format!("{}/token", started.header("location"));
    // Expiry is in whole seconds, so a token of the same second expires at the same time.
    let fresh = wait_until("a later expiry", Duration::from_secs(5), async || {
        let fresh = answer(app.request(Method::POST, &path)).await;
        assert_eq!(fresh.status, 200, "{}", fresh.body);
        let later = fresh.body["token_expiry"].as_str() > started.body["token_expiry"].as_str();
        Ok(later.then_some(fresh))
    });
    let fresh = fresh.await.unwrap();
    assert_eq!(fresh.header("cache-control"), "no-store");
    assert_eq!(fresh.header("idempotent-replayed"), "");
    for field in ["session_id", "room_name", "participant_identity", "join_by", "livekit_url"] {
        assert_eq!(fresh.body[field], started.body[field], "{field}");
    }
    assert_eq!(fresh.body["participant_token"], fresh.body["access_token"]);
    assert_eq!(fresh.body["server_url"], fresh.body["livekit_url"]);
    assert_eq!(fresh.body.as_object().unwrap().len(), 9, "{}", fresh.body);

    let token = claims(fresh.body["access_token"].as_str().unwrap());
    let expiry: chrono::DateTime<chrono::Utc> =
        fresh.body["token_expiry"].as_str().unwrap().parse().unwrap();
    assert_eq!(token["exp"], expiry.timestamp());
    let lifetime = token["exp"].as_i64().unwrap() - token["nbf"].as_i64().unwrap();
    // `nbf` is ten seconds before the current time, truncated to a second.
    assert!((100..=101).contains(&lifetime), "{lifetime}");
    assert_eq!(
        claims_without_times(&fresh.body["access_token"]),
        claims_without_times(&started.body["access_token"]),
        "only the times differ"
    );
    let session = app.get(started.header("location")).await.body;
    assert_eq!(session["token_expiry"], fresh.body["token_expiry"], "the latest expiry");
    assert_in_order(&app.events(started.header("location")).await, &["created", "token_refreshed"]);

    let user = User::new(
        fresh.body["server_url"].as_str().unwrap(),
        fresh.body["participant_token"].as_str().unwrap(),
    );
    let report = user.greeting_timeout(Duration::ZERO).join_and_report().await.unwrap();
    assert_eq!(report.room.as_deref(), started.body["room_name"].as_str(), "{report:?}");
    assert_eq!(report.identity.as_deref(), Some("ann"));
}

#[tokio::test]
async fn fresh_on_join_token_still_requests_agent() {
    let app = App::start().await;
    let template =
        app.create_template(json!({"room_creation": "on_join", "agent_name": "greeter"})).await;
    let started = app.start_session(&template, json!({})).await;
    let path = format!("{}/token", started.header("location"));
    let fresh = app.post(&path, &json!({})).await;
    assert_eq!(fresh.status, 200, "{}", fresh.body);
    let token = claims_without_times(&fresh.body["access_token"]);
    assert_eq!(token["roomConfig"]["agents"][0]["agentName"], "greeter");
    assert_eq!(
        token,
        claims_without_times(&started.body["access_token"]),
        "a guest keeps its identity"
    );
}

#[tokio::test]
async fn ended_session_issues_no_token() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let session = app.start_session(&template, json!({})).await.header("location").to_owned();
    let path = format!("{session}/token");
    assert_eq!(app.post(&path, &json!({})).await.status, 200, "control: the session is not over");
    let ended = app.post(&format!("{session}/end"), &json!({})).await;
    assert_eq!(ended.status, 200, "{}", ended.body);
    app.post(&path, &json!({})).await.assert_problem(409, "session_over");
}

#[tokio::test]
async fn only_callers_who_see_session_get_token() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let anns = app.start_session(&template, json!({"user_id": "ann"})).await;
    let path = format!("{}/token", anns.header("location"));
    let ann = app.request_as("ann", Method::POST, &path).await;
    assert_eq!((ann.status, &ann.body["participant_identity"]), (200, &json!("ann")));
    app.request_as("ben", Method::POST, &path).await.assert_problem(404, "session_not_found");
    let missing = format!("/api/v1/sessions/{}/token", uuid());
    app.post(&missing, &json!({})).await.assert_problem(404, "session_not_found");
    let wrong = app.post("/api/v1/sessions/42/token", &json!({})).await;
    wrong.assert_problem(400, "invalid_request");
    assert_eq!(wrong.fields(), ["session_id"]);
}
