//! LiveKit's webhooks: their verification and their effect on sessions.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::{caller, ports, wait_until};
use serde_json::{Value, json};

use crate::app::{Answer, App, answer, join_for};

const PREVIOUS_KEY: &str = "previous-key";
const PREVIOUS_SECRET: &str = "the previous secret of thirty-two bytes";

/// The `Authorization` header that LiveKit sends with this body.
fn signed(key: &str, secret: &str, body: &str, seconds: i64) -> String {
    let sha256 = BASE64_STANDARD.encode(digest(&SHA256, body.as_bytes()));
    let claims = json!({"iss": key, "exp": caller::seconds_from_now(seconds), "sha256": sha256});
    caller::token(secret, &claims)
}

/// The `Authorization` header of the LiveKit server that tests share.
async fn signed_by_livekit(body: &str) -> String {
    let livekit = Server::shared().await.unwrap();
    signed(livekit.api_key(), livekit.api_secret(), body, 300)
}

async fn send(app: &App, authorization: &str, body: &str) -> Answer {
    let request = app.client.post(format!("{}/webhooks/livekit", app.address));
    let request = request.header("content-type", "application/webhook+json");
    answer(request.header("authorization", authorization).body(body.to_owned())).await
}

/// The webhook that reports that ann has joined this room.
fn joined(room: &Value) -> Value {
    json!({"event": "participant_joined", "id": "EV_1",
           "createdAt": (caller::seconds_from_now(0)).to_string(),
           "room": {"name": room, "sid": "RM_1"},
           "participant": {"identity": "ann", "sid": "PA_1", "state": "ACTIVE"}})
}

/// Starts a session of ann without a room, so that only webhooks change the session.
async fn anns_session(app: &App) -> Answer {
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    app.start_session(&template, json!({"user_id": "ann"})).await
}

/// The number of `user_joined` events in the timeline.
async fn joins(app: &App, session: &Answer) -> usize {
    let events = app.events(session.header("location")).await;
    events.iter().filter(|event| *event == "user_joined").count()
}

#[tokio::test]
async fn webhook_without_valid_signature_is_refused() {
    let app = App::start().await;
    let livekit = Server::shared().await.unwrap();
    let (key, secret) = (livekit.api_key(), livekit.api_secret());
    let session = anns_session(&app).await;
    let body = joined(&session.body["room_name"]).to_string();
    let valid = signed(key, secret, &body, 300);
    for (what, authorization) in [
        ("an empty header", String::new()),
        ("a header without a token", "x".to_owned()),
        ("a scheme", format!("Bearer {valid}")),
        ("an expired token", signed(key, secret, &body, -120)),
        ("the token of another body", signed(key, secret, &body.replace("ann", "ben"), 300)),
        ("a token with another secret", signed(key, PREVIOUS_SECRET, &body, 300)),
        ("a token with another key", signed("another", secret, &body, 300)),
        (
            "a previous key, which is not configured",
            signed(PREVIOUS_KEY, PREVIOUS_SECRET, &body, 300),
        ),
        ("a user's join token", session.body["access_token"].as_str().unwrap().to_owned()),
        ("a caller's token", app.token()),
    ] {
        let refused = send(&app, &authorization, &body).await;
        refused.assert_problem(401, "unauthenticated");
        assert_eq!(joins(&app, &session).await, 0, "{what} was accepted");
    }
    let unsigned = app.client.post(format!("{}/webhooks/livekit", app.address)).body(body.clone());
    answer(unsigned).await.assert_problem(401, "unauthenticated");

    for _ in 0..2 {
        let accepted = send(&app, &valid, &body).await;
        assert_eq!((accepted.status, &accepted.body), (200, &json!("")));
        assert_eq!(joins(&app, &session).await, 1, "a repeated webhook is recorded once");
    }
}

#[tokio::test]
async fn webhook_signed_with_previous_key_is_accepted() {
    let app = App::with(&[
        ("LIVEKIT_API_KEY_PREVIOUS", PREVIOUS_KEY),
        ("LIVEKIT_API_SECRET_PREVIOUS", PREVIOUS_SECRET),
    ])
    .await;
    let session = anns_session(&app).await;
    let body = joined(&session.body["room_name"]).to_string();
    let accepted = send(&app, &signed(PREVIOUS_KEY, PREVIOUS_SECRET, &body, 300), &body).await;
    assert_eq!(accepted.status, 200, "{}", accepted.body);
    assert_eq!(joins(&app, &session).await, 1);
    assert_eq!(
        send(&app, &signed_by_livekit(&body).await, &body).await.status,
        200,
        "the current key"
    );
}

#[tokio::test]
async fn unrelated_and_unknown_events_change_nothing() {
    let app = App::start().await;
    let session = anns_session(&app).await;
    let room = &session.body["room_name"];
    let before = app.get(session.header("location")).await.body;
    let events = app.events(session.header("location")).await;
    for event in [
        joined(&json!("session_20261122_143022_a7b3c9")),
        joined(&json!("another application's room")),
        joined(&Value::Null),
        json!({"event": "track_published", "room": {"name": room}, "track": {"type": "A_NEW_ONE"}}),
        json!({"event": "from_a_newer_server", "room": {"name": room}, "more": [1, {}]}),
        json!({"event": "participant_joined", "room": {"name": room}}),
        json!({"event": "participant_joined", "createdAt": "1800000000", "room": {"name": room},
               "participant": {"identity": "EG_1", "sid": "PA_2", "kind": "EGRESS"}}),
        json!({"event": "participant_joined", "createdAt": "1800000000", "room": {"name": room},
               "participant": {"identity": "ben", "sid": "PA_3"}}),
        // PostgreSQL cannot store these values.
        json!({"event": "participant_joined", "createdAt": "1800000000", "room": {"name": room},
               "participant": {"identity": "agent\u{0}", "sid": "PA_4", "kind": "AGENT"}}),
        json!({"event": "room_started", "createdAt": "-5000000000000",
               "room": {"name": room, "sid": "RM_1"}}),
        json!({}),
    ] {
        let body = event.to_string();
        let accepted = send(&app, &signed_by_livekit(&body).await, &body).await;
        assert_eq!((accepted.status, &accepted.body), (200, &json!("")), "{event}");
        assert_eq!(app.get(session.header("location")).await.body, before, "{event}");
        assert_eq!(app.events(session.header("location")).await, events, "{event}");
    }
}

#[tokio::test]
async fn body_of_one_mib_and_any_content_type_is_accepted() {
    let app = App::start().await;
    let session = anns_session(&app).await;
    let of_length = |bytes: usize| {
        let mut event = joined(&session.body["room_name"]);
        event["participant"]["metadata"] = json!("");
        let padding = bytes - event.to_string().len();
        event["participant"]["metadata"] = json!("x".repeat(padding));
        event.to_string()
    };
    let large = of_length(1024 * 1024 + 1);
    let refused = send(&app, &signed_by_livekit(&large).await, &large).await;
    refused.assert_problem(413, "body_too_large");
    assert_eq!(refused.body["detail"], "The body is larger than 1024 KiB.");
    assert_eq!(joins(&app, &session).await, 0);

    let largest = of_length(1024 * 1024);
    let request = app.client.post(format!("{}/webhooks/livekit", app.address));
    let request = request.header("authorization", signed_by_livekit(&largest).await);
    let accepted = answer(request.header("content-type", "text/plain").body(largest)).await;
    assert_eq!(accepted.status, 200, "{}", accepted.body);
    assert_eq!(joins(&app, &session).await, 1);
}

#[tokio::test]
async fn webhook_that_cannot_be_stored_gets_503() {
    let mut cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let app = App::on(database, Server::shared().await.unwrap(), &[]).await;
    let session = anns_session(&app).await;
    let body = joined(&session.body["room_name"]).to_string();
    cluster.stop().await.unwrap();
    let refused = send(&app, &signed_by_livekit(&body).await, &body).await;
    refused.assert_problem(503, "database_unavailable");
    let forged = send(&app, "x", &body).await;
    forged.assert_problem(401, "unauthenticated");
    cluster.start().await.unwrap();
    wait_until("PostgreSQL", Duration::from_secs(10), async || {
        Ok((send(&app, &signed_by_livekit(&body).await, &body).await.status == 200).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(joins(&app, &session).await, 1);
}

#[tokio::test]
async fn webhooks_of_livekit_activate_session() {
    let address = format!("127.0.0.1:{}", ports::free_tcp_port().unwrap());
    let webhook_urls = vec![format!("http://{address}/webhooks/livekit")];
    let livekit = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let database = Database::fresh().await.unwrap();
    // The keeper first checks an `on_join` session after this interval, so only webhooks can change
    // the session during the test.
    let changed = [("GREENROOM_LISTEN", address.as_str()), ("GREENROOM_RECONCILE_SECONDS", "3600")];
    let app = App::on(database, &livekit, &changed).await;
    let template = json!({"room_creation": "on_join", "join_window_seconds": 3600});
    let template = app.create_template(template).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let ann = join_for(&started.body, Duration::from_secs(10));
    let active = app.wait_for_status(&session, "active", Duration::from_secs(15)).await;
    assert!(active["started_at"].is_string() && active["ended_at"].is_null(), "{active}");
    assert_eq!(joins(&app, &started).await, 1);
    assert!(ann.await.unwrap().unwrap().connected);
    wait_until("the event user_left", Duration::from_secs(10), async || {
        let events = app.events(&session).await;
        Ok(events.contains(&"user_left".to_owned()).then_some(()))
    })
    .await
    .unwrap();
}
