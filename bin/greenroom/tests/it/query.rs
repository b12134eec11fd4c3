//! Reading sessions over HTTP.

use serde_json::{Value, json};

use greenroom_testkit::caller;

use crate::app::{AUTH_SECRET, App, answer, uuid};

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_session_shows_what_it_was_started_with() {
    let app = App::start().await;
    let template = app
        .template(
            json!({"room_creation": "on_join", "modality_profile": "camera", "enabled_panels": []}),
        )
        .await;
    let started =
        app.start_session(&template, json!({"user_id": "ann", "metadata": {"order": 42}})).await;
    let session = app.get(started.header("location")).await;
    assert_eq!(session.status, 200);
    for (field, value) in [
        ("id", started.body["session_id"].clone()),
        ("room_name", started.body["room_name"].clone()),
        ("token_expiry", started.body["token_expiry"].clone()),
        ("join_by", started.body["join_by"].clone()),
        ("status", json!("pending")),
        ("agent_status", json!("none")),
        ("session_template_id", json!(template)),
        ("user_id", json!("ann")),
        ("modality_profile", json!("camera")),
        ("enabled_panels", json!([])),
        ("metadata", json!({"order": 42})),
        ("started_at", Value::Null),
        ("ended_at", Value::Null),
        ("end_reason", Value::Null),
    ] {
        assert_eq!(session.body[field], value, "{field}");
    }
    assert_eq!(session.body.as_object().unwrap().len(), 15, "{}", session.body);
    assert!(session.body["created_at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_session_of_another_organization_is_absent() {
    let app = App::start().await;
    let template = app.template(json!({"room_creation": "on_join"})).await;
    let started = app.start_session(&template, json!({})).await;
    let stranger = caller::backend(AUTH_SECRET, uuid());
    for path in [started.header("location"), &format!("/api/v1/session-templates/{template}")] {
        let request = app.client.get(format!("{}{path}", app.address)).bearer_auth(&stranger);
        assert_eq!(answer(request).await.status, 404, "{path}");
    }
    let list = app.client.get(format!("{}/api/v1/sessions", app.address)).bearer_auth(&stranger);
    assert_eq!(answer(list).await.body, json!([]));
    app.get(&format!("/api/v1/sessions/{}", uuid())).await.assert_problem(404, "session_not_found");
    let wrong = app.get("/api/v1/sessions/42").await;
    wrong.assert_problem(400, "invalid_request");
    assert_eq!(wrong.fields(), ["session_id"]);
}

#[tokio::test]
async fn the_list_is_newest_first_and_filtered() {
    let app = App::start().await;
    let template = app.template(json!({"room_creation": "on_join"})).await;
    let mut started = Vec::new();
    for user in ["ann", "ben", "ann"] {
        let answer = app.start_session(&template, json!({"user_id": user})).await;
        started.push(answer.body["session_id"].as_str().unwrap().to_owned());
    }
    let [first, second, third] = &started[..] else { panic!("three were started") };
    let list = async |query: &str| app.get(&format!("/api/v1/sessions{query}")).await.body;
    assert_eq!(ids(&list("").await), [third, second, first]);
    assert_eq!(ids(&list("?limit=2").await), [third, second]);
    assert_eq!(ids(&list("?limit=2&offset=2").await), [first]);
    assert_eq!(ids(&list("?user_id=ann").await), [third, first]);
    assert_eq!(ids(&list("?status=pending").await), [third, second, first]);
    assert_eq!(ids(&list("?status=failed,ended").await), [""; 0]);
    assert_eq!(ids(&list("?status=failed,pending&user_id=ben&limit=200&offset=0").await), [second]);
}

#[tokio::test]
async fn parameters_that_do_not_work_yet_are_refused_and_not_dropped() {
    let app = App::start().await;
    let id = uuid();
    for path in [
        format!("/api/v1/sessions?session_template_id={id}"),
        "/api/v1/sessions?created_after=2999-01-01T00:00:00Z".to_owned(),
        "/api/v1/sessions?limit=1&cursor=x".to_owned(),
        format!("/api/v1/sessions/{id}?wait_for=ended"),
        "/api/v1/session-templates?include_archived=true".to_owned(),
    ] {
        app.get(&path).await.assert_problem(422, "not_configurable");
    }
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let app = App::start().await;
    for (query, fields) in [
        ("?limit=0", vec!["limit"]),
        ("?limit=201", vec!["limit"]),
        ("?limit=ten&offset=-1&status=lost&user_id=", vec!["limit", "offset", "status", "user_id"]),
        ("?offset=10001", vec!["offset"]),
        ("?offset=99999999999999999999999", vec!["offset"]),
        ("?user_id=a%00b", vec!["user_id"]),
        ("?status=", vec!["status"]),
        ("?limit=1&limit=2", vec!["query"]),
    ] {
        let refused = app.get(&format!("/api/v1/sessions{query}")).await;
        refused.assert_problem(400, "invalid_request");
        assert_eq!(refused.fields(), fields, "{query}");
    }
    // Invalid UTF-8 is read as U+FFFD, which no user is called.
    assert_eq!(app.get("/api/v1/sessions?user_id=%ff").await.body, json!([]));
}
