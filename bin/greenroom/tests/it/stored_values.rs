//! Values that a newer version or an edit by hand wrote: shown if possible, and never used.

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{App, answer};

const TEMPLATES: &str = "/api/v1/session-templates";

/// A program, and a connection to its database, which checks no values.
async fn app() -> (App, AsyncPgConnection) {
    let database = Database::fresh().await.unwrap();
    let app = App::on(database, Server::shared().await.unwrap(), &[]).await;
    let mut db = AsyncPgConnection::establish(app.database_url()).await.unwrap();
    db.batch_execute(
        "alter table session_templates drop constraint session_templates_room_creation_check,
           drop constraint session_templates_on_agent_hangup_check",
    )
    .await
    .unwrap();
    (app, db)
}

#[tokio::test]
async fn invalid_values_of_a_session_are_shown_and_not_used() {
    let (app, mut db) = app().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let edit = "update sessions set user_id = '', room_name = 'a b', modality_profile = 'smell'";
    db.batch_execute(edit).await.unwrap();

    let shown = app.get(&session).await.body;
    let values = ["user_id", "room_name", "modality_profile"].map(|field| shown[field].clone());
    assert_eq!(values, ["", "a b", "unknown"]);
    assert_eq!(app.get("/api/v1/sessions").await.body, json!([shown]));
    let as_ann = app.client.get(format!("{}{session}", app.address));
    let as_ann = answer(as_ann.bearer_auth(app.user_token("ann"))).await;
    as_ann.assert_problem(404, "session_not_found");

    let refused = app.post(&format!("{session}/token"), &json!({})).await;
    refused.assert_problem(503, "not_ready");
    let (log, request) = (app.process.output(), refused.header("x-request-id"));
    let is_cause = |line: &str| line.contains(request) && line.contains("room_name must be");
    assert!(log.lines().any(is_cause), "{log}");

    let ended = app.post(&format!("{session}/end"), &json!({})).await;
    assert_eq!((ended.status, &ended.body["status"]), (200, &json!("ended")), "{}", ended.body);
    let waited = app.get(&format!("{session}?wait_for=ended")).await;
    assert_eq!((waited.status, waited.body), (200, ended.body));
    db.batch_execute("update sessions set metadata = '[7]'").await.unwrap();
    app.get(&session).await.assert_problem(503, "not_ready");
}

#[tokio::test]
async fn template_of_newer_version_is_shown_changed_and_not_started() {
    let (app, mut db) = app().await;
    let template = app.create_template(json!({})).await;
    let edit =
        "update session_templates set room_creation = 'on_demand', on_agent_hangup = 'redial'";
    db.batch_execute(edit).await.unwrap();

    let path = format!("{TEMPLATES}/{template}");
    let shown = app.get(&path).await.body;
    let unknown = ["room_creation", "on_agent_hangup"].map(|field| shown[field].clone());
    assert_eq!(unknown, ["unknown", "unknown"]);
    assert_eq!(app.get(TEMPLATES).await.body, json!([shown]));
    for body in [json!({}), json!({"user_id": "ann"})] {
        app.start_session(&template, body).await.assert_problem(503, "not_ready");
    }
    let keyed = app.request(Method::POST, "/api/v1/sessions/start").header("idempotency-key", "k");
    let keyed = answer(keyed.json(&json!({"session_template_id": template}))).await;
    keyed.assert_problem(503, "not_ready");
    assert_eq!(app.get("/api/v1/sessions").await.body, json!([]));

    let change = async |patch: Value| {
        let request = app.request(Method::PATCH, &path);
        answer(request.json(&patch)).await
    };
    let refused = change(json!({"room_creation": "on_start"})).await;
    refused.assert_problem(400, "invalid_request");
    assert_eq!(refused.fields(), ["on_agent_hangup"]);
    let changed = change(json!({"room_creation": "on_start", "on_agent_hangup": null})).await;
    assert_eq!((changed.status, &changed.body["on_agent_hangup"]), (200, &json!("keep")));
    assert_eq!(app.start_session(&template, json!({})).await.status, 201);
}
