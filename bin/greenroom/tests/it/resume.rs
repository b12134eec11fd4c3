//! End users who repeat a start without an idempotency key, as SDKs do, and resume their session.

use std::collections::HashSet;
use std::time::Duration;

use diesel::sql_query;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use futures_util::future::join_all;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::user::{LiveParticipant, User};
use greenroom_testkit::wait_until;
use serde_json::{Value, json};

use crate::app::{Answer, App, answer};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a session as an end user, without an idempotency key.
async fn fetch(app: &App, user: &str, template: &str, body: Value) -> Answer {
    let url = format!("{}/api/v1/sessions/start?session_template_id={template}", app.address);
    answer(app.client.post(url).bearer_auth(app.user_token(user)).json(&body)).await
}

/// Joins the room of a started session and stays.
async fn enter(app: &App, started: &Answer) -> LiveParticipant {
    let text = |field: &str| started.body[field].as_str().unwrap();
    let user =
        User::new(text("server_url"), text("participant_token")).join_and_stay().await.unwrap();
    app.wait_for_status(started.header("location"), "active", TIMEOUT).await;
    user
}

/// Leaves the room and waits for the event in the timeline.
async fn leave(app: &App, user: LiveParticipant, location: &str) {
    user.leave().await.unwrap();
    wait_until("the event user_left", TIMEOUT, async || {
        let events = app.events(location).await;
        Ok(events.iter().any(|event| event == "user_left").then_some(()))
    })
    .await
    .unwrap();
}

#[track_caller]
fn assert_started(answer: &Answer, replayed: bool) -> String {
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.header("idempotent-replayed"), if replayed { "true" } else { "" });
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.header("location").to_owned()
}

#[tokio::test]
async fn same_request_resumes_session_and_different_request_starts_another() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let other = app.create_template(json!({"room_creation": "on_join"})).await;
    let first = fetch(&app, "ann", &template, json!({})).await;
    let location = assert_started(&first, false);
    // These bodies are equivalent to the first request.
    for body in [json!({"room_config": {}}), json!({"user_id": "ann"}), json!({"roomName": ""})] {
        let again = fetch(&app, "ann", &template, body).await;
        assert_eq!(assert_started(&again, true), location);
        for field in ["session_id", "room_name", "participant_identity", "join_by"] {
            assert_eq!(again.body[field], first.body[field], "{field}");
        }
    }
    let mut all = HashSet::from([location]);
    for (user, template, body) in [
        ("ben", &template, json!({})),
        ("ann", &other, json!({})),
        ("ann", &template, json!({"participant_name": "Ann"})),
        ("ann", &template, json!({"participant_attributes": {"plan": "gold"}})),
    ] {
        let started = fetch(&app, user, template, body).await;
        assert!(all.insert(assert_started(&started, false)), "{user}");
    }
    // A backend gets a new session for each request.
    for _ in 0..2 {
        let started = app.start_session(&template, json!({"user_id": "ann"})).await;
        assert!(all.insert(assert_started(&started, false)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_concurrent_starts_get_one_session_and_one_room() {
    let app = App::start().await;
    let template = app.create_template(json!({})).await;
    let earlier = fetch(&app, "ann", &template, json!({})).await;
    let ended = app.post(&format!("{}/end", earlier.header("location")), &json!({})).await;
    assert_eq!(ended.status, 200, "{}", ended.body);
    let fetches = (0..16).map(|_| fetch(&app, "ann", &template, json!({})));
    let answers = join_all(fetches).await;
    let all: HashSet<_> = answers.iter().map(|answer| answer.header("location")).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(!all.contains(earlier.header("location")), "the earlier session is over");
    let replayed = |answer: &&Answer| answer.header("idempotent-replayed") == "true";
    assert_eq!(answers.iter().filter(replayed).count(), 15);
    let room = answers[0].body["room_name"].as_str().unwrap();
    assert!(Server::shared().await.unwrap().room(room).await.unwrap().is_some());
    assert_eq!(app.get("/api/v1/sessions").await.body.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn user_who_left_resumes_session_and_connected_user_starts_another() {
    let app = App::with(&[("GREENROOM_RECONCILE_SECONDS", "1")]).await;
    let template = app.create_template(json!({"reconnect_window_seconds": 30})).await;
    let first = fetch(&app, "ann", &template, json!({})).await;
    let location = assert_started(&first, false);
    let user = enter(&app, &first).await;
    let second = fetch(&app, "ann", &template, json!({})).await;
    let other = assert_started(&second, false);
    assert_ne!(other, location, "a second device gets its own session");
    leave(&app, user, &location).await;
    // From now on, the request resumes the session of the second device.
    assert_eq!(assert_started(&fetch(&app, "ann", &template, json!({})).await, true), other);
    let user = enter(&app, &second).await;
    leave(&app, user, &other).await;
    let reloaded = fetch(&app, "ann", &template, json!({})).await;
    assert_eq!(assert_started(&reloaded, true), other);
    assert_eq!(app.get(&other).await.body["status"], "active");
    enter(&app, &reloaded).await;
}

#[tokio::test]
async fn session_past_its_deadline_is_not_resumed_before_keeper_ends_it() {
    let app = App::start().await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    let mut db = AsyncPgConnection::establish(app.database_url()).await.unwrap();
    let left = "status = 'active', started_at = now(), user_joined_at = now() - interval '2 s',
        user_left_at = now() - interval '1 s'";
    for (state, resumes) in [
        ("created_at = now() - interval '23 hours 59 minutes'".to_owned(), true),
        ("created_at = now() - interval '24 hours'".to_owned(), false),
        ("join_by = now() + interval '1 minute'".to_owned(), true),
        ("join_by = now() - interval '1 s'".to_owned(), false),
        (format!("{left}, end_by = now() + interval '1 minute'"), true),
        (format!("{left}, end_by = now() - interval '1 s'"), false),
    ] {
        let first = fetch(&app, "ann", &template, json!({})).await;
        // The keeper does not check the session before the next start.
        let overdue = format!(
            "update sessions set {state}, next_check_at = now() + interval '1 hour' where id = '{}'",
            first.body["session_id"].as_str().unwrap()
        );
        assert_eq!(sql_query(overdue).execute(&mut db).await.unwrap(), 1);
        let again = fetch(&app, "ann", &template, json!({})).await;
        let same = assert_started(&again, resumes) == first.header("location");
        assert_eq!(same, resumes, "{state}");
    }
}

#[tokio::test]
async fn resumed_start_does_not_count_and_refused_start_takes_no_key() {
    let app = App::with(&[("GREENROOM_RECONCILE_SECONDS", "1")]).await;
    let template = app.create_template(json!({"reconnect_window_seconds": 30})).await;
    app.set_session_limit("1").await;
    let first = fetch(&app, "ann", &template, json!({})).await;
    let location = assert_started(&first, false);
    assert_eq!(assert_started(&fetch(&app, "ann", &template, json!({})).await, true), location);
    fetch(&app, "ben", &template, json!({})).await.assert_problem(429, "too_many_active_sessions");
    let user = enter(&app, &first).await;
    let second = fetch(&app, "ann", &template, json!({})).await;
    second.assert_problem(429, "too_many_active_sessions");
    leave(&app, user, &location).await;
    let again = fetch(&app, "ann", &template, json!({})).await;
    assert_eq!(assert_started(&again, true), location, "the refused start took no key");
}

#[tokio::test]
async fn start_that_failed_in_livekit_is_resumed() {
    let app = App::with(&[("LIVEKIT_API_URL", "http://127.0.0.1:9")]).await;
    let template = app.create_template(json!({})).await;
    for _ in 0..2 {
        let failed = fetch(&app, "ann", &template, json!({})).await;
        failed.assert_problem(503, "livekit_unavailable");
    }
    let sessions = app.get("/api/v1/sessions").await.body;
    let [session] = &sessions.as_array().unwrap()[..] else { panic!("there is one session") };
    assert_eq!(session["status"], "pending", "a repeated start may open the room");
}
