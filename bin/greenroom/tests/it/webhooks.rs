//! LiveKit's webhooks: who is believed, and what comes of it.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::{caller, place, wait_until};
use serde_json::{Value, json};

use crate::app::{Answer, App, answer, stay};

const KEY_BEFORE: &str = "key-before";
const SECRET_BEFORE: &str = "the secret before, thirty-two bytes long";

/// What LiveKit sends in `Authorization` with this body.
fn signed(key: &str, secret: &str, body: &str, life: i64) -> String {
    let sha256 = BASE64_STANDARD.encode(digest(&SHA256, body.as_bytes()));
    let claims = json!({"iss": key, "exp": caller::in_seconds(life), "sha256": sha256});
    caller::token(secret, &claims)
}

/// The same, by the LiveKit that tests share.
async fn by_livekit(body: &str) -> String {
    let livekit = Server::shared().await.unwrap();
    signed(livekit.api_key(), livekit.api_secret(), body, 300)
}

async fn send(app: &App, authorization: &str, body: &str) -> Answer {
    let request = app.client.post(format!("{}/webhooks/livekit", app.address));
    let request = request.header("content-type", "application/webhook+json");
    answer(request.header("authorization", authorization).body(body.to_owned())).await
}

/// That ann has joined this room, in LiveKit's words.
fn joined(room: &Value) -> Value {
    json!({"event": "participant_joined", "id": "EV_1",
           "createdAt": (caller::in_seconds(0)).to_string(),
           "room": {"name": room, "sid": "RM_1"},
           "participant": {"identity": "ann", "sid": "PA_1", "state": "ACTIVE"}})
}

/// A session of ann's whose room is not there, so that no look finds more than what is told.
async fn anns_session(app: &App) -> Answer {
    let template = app.template(json!({"room_creation": "on_join"})).await;
    app.start_session(&template, json!({"user_id": "ann"})).await
}

/// How often the timeline says that the user has joined.
async fn joins(app: &App, session: &Answer) -> usize {
    let events = app.events(session.header("location")).await;
    events.iter().filter(|event| *event == "user_joined").count()
}

#[tokio::test]
async fn only_livekit_is_believed() {
    let app = App::start().await;
    let livekit = Server::shared().await.unwrap();
    let (key, secret) = (livekit.api_key(), livekit.api_secret());
    let session = anns_session(&app).await;
    let body = joined(&session.body["room_name"]).to_string();
    let right = signed(key, secret, &body, 300);
    for (what, authorization) in [
        ("an empty one", String::new()),
        ("no token", "x".to_owned()),
        ("a scheme", format!("Bearer {right}")),
        ("one that has expired", signed(key, secret, &body, -120)),
        ("one of another body", signed(key, secret, &body.replace("ann", "ben"), 300)),
        ("one by another secret", signed(key, SECRET_BEFORE, &body, 300)),
        ("one of another key", signed("another", secret, &body, 300)),
        ("the key before, which is not set", signed(KEY_BEFORE, SECRET_BEFORE, &body, 300)),
        ("a user's pass", session.body["access_token"].as_str().unwrap().to_owned()),
        ("a caller's token", app.token()),
    ] {
        let refused = send(&app, &authorization, &body).await;
        refused.assert_problem(401, "unauthenticated");
        assert_eq!(joins(&app, &session).await, 0, "{what} was believed");
    }
    let unsigned = app.client.post(format!("{}/webhooks/livekit", app.address)).body(body.clone());
    answer(unsigned).await.assert_problem(401, "unauthenticated");

    for _ in 0..2 {
        let taken = send(&app, &right, &body).await;
        assert_eq!((taken.status, &taken.body), (200, &json!("")));
        assert_eq!(joins(&app, &session).await, 1, "told twice, it stands there once");
    }
}

#[tokio::test]
async fn the_key_before_is_believed_while_keys_rotate() {
    let app = App::with(&[
        ("LIVEKIT_API_KEY_PREVIOUS", KEY_BEFORE),
        ("LIVEKIT_API_SECRET_PREVIOUS", SECRET_BEFORE),
    ])
    .await;
    let session = anns_session(&app).await;
    let body = joined(&session.body["room_name"]).to_string();
    let taken = send(&app, &signed(KEY_BEFORE, SECRET_BEFORE, &body, 300), &body).await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert_eq!(joins(&app, &session).await, 1);
    assert_eq!(send(&app, &by_livekit(&body).await, &body).await.status, 200, "the key of today");
}

#[tokio::test]
async fn what_is_of_no_session_or_not_known_changes_nothing() {
    let app = App::start().await;
    let session = anns_session(&app).await;
    let room = &session.body["room_name"];
    let before = app.get(session.header("location")).await.body;
    let events = app.events(session.header("location")).await;
    for event in [
        joined(&json!("session_20261122_143022_a7b3c9")),
        joined(&json!("somebody else's room")),
        joined(&Value::Null),
        json!({"event": "track_published", "room": {"name": room}, "track": {"type": "A_NEW_ONE"}}),
        json!({"event": "from_a_newer_server", "room": {"name": room}, "more": [1, {}]}),
        json!({"event": "participant_joined", "room": {"name": room}}),
        json!({"event": "participant_joined", "createdAt": "1800000000", "room": {"name": room},
               "participant": {"identity": "EG_1", "sid": "PA_2", "kind": "EGRESS"}}),
        json!({"event": "participant_joined", "createdAt": "1800000000", "room": {"name": room},
               "participant": {"identity": "ben", "sid": "PA_3"}}),
        // What PostgreSQL cannot hold.
        json!({"event": "participant_joined", "createdAt": "1800000000", "room": {"name": room},
               "participant": {"identity": "agent\u{0}", "sid": "PA_4", "kind": "AGENT"}}),
        json!({"event": "room_started", "createdAt": "-5000000000000",
               "room": {"name": room, "sid": "RM_1"}}),
        json!({}),
    ] {
        let body = event.to_string();
        let taken = send(&app, &by_livekit(&body).await, &body).await;
        assert_eq!((taken.status, &taken.body), (200, &json!("")), "{event}");
        assert_eq!(app.get(session.header("location")).await.body, before, "{event}");
        assert_eq!(app.events(session.header("location")).await, events, "{event}");
    }
}

#[tokio::test]
async fn a_mebibyte_of_any_type_is_taken_and_no_more() {
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
    let refused = send(&app, &by_livekit(&large).await, &large).await;
    refused.assert_problem(413, "body_too_large");
    assert_eq!(refused.body["detail"], "The body is larger than 1024 KiB.");
    assert_eq!(joins(&app, &session).await, 0);

    let largest = of_length(1024 * 1024);
    let request = app.client.post(format!("{}/webhooks/livekit", app.address));
    let request = request.header("authorization", by_livekit(&largest).await);
    let taken = answer(request.header("content-type", "text/plain").body(largest)).await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert_eq!(joins(&app, &session).await, 1);
}

#[tokio::test]
async fn what_cannot_be_written_is_to_be_sent_again() {
    let mut cluster = Cluster::private().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let app = App::on(database, Server::shared().await.unwrap(), &[]).await;
    let session = anns_session(&app).await;
    let body = joined(&session.body["room_name"]).to_string();
    cluster.stop().await.unwrap();
    let refused = send(&app, &by_livekit(&body).await, &body).await;
    refused.assert_problem(503, "database_unavailable");
    let forged = send(&app, "x", &body).await;
    forged.assert_problem(401, "unauthenticated");
    cluster.start().await.unwrap();
    wait_until("PostgreSQL to be back", Duration::from_secs(10), async || {
        Ok((send(&app, &by_livekit(&body).await, &body).await.status == 200).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(joins(&app, &session).await, 1);
}

#[tokio::test]
async fn livekits_own_webhook_makes_the_session_active() {
    let address = format!("127.0.0.1:{}", place::free_tcp_port().unwrap());
    let webhook_urls = vec![format!("http://{address}/webhooks/livekit")];
    let livekit = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let database = Database::fresh().await.unwrap();
    // Nobody looks at it by themselves in this test's lifetime: the next look is an hour away, and
    // what opens when the user joins is not looked at before.
    let changed = [("GREENROOM_LISTEN", address.as_str()), ("GREENROOM_RECONCILE_SECONDS", "3600")];
    let app = App::on(database, &livekit, &changed).await;
    let template = json!({"room_creation": "on_join", "join_window_seconds": 3600});
    let template = app.template(template).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let ann = stay(&started.body, Duration::from_secs(10));
    let active = app.becomes(&session, "active", Duration::from_secs(15)).await;
    assert!(active["started_at"].is_string() && active["ended_at"].is_null(), "{active}");
    assert_eq!(joins(&app, &started).await, 1);
    assert!(ann.await.unwrap().unwrap().connected);
    wait_until("the leaving to be told", Duration::from_secs(10), async || {
        let events = app.events(&session).await;
        Ok(events.contains(&"user_left".to_owned()).then_some(()))
    })
    .await
    .unwrap();
}
