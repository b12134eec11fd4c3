//! Tests of a LiveKit server with the demo agent and users.

use std::time::Duration;

use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::user::User;
use greenroom_testkit::wait_until;
use livekit_api::access_token::{TokenVerifier, VideoGrants};
use livekit_api::webhooks::WebhookReceiver;

use crate::token;

const ROOM: &str = "testkit";

#[tokio::test]
async fn dispatched_agent_joins_and_greets_user() {
    let server = Server::shared().await.unwrap();
    let worker = Worker::start(server, "testkit-greeter").await.unwrap();
    server.dispatch(ROOM, "testkit-greeter", r#"{"session_id": "4711"}"#).await.unwrap();
    let agent = server.wait_for_agent(ROOM, Duration::from_secs(20)).await.unwrap();

    let user = User::new(server.url(), &token(server, ROOM, VideoGrants::default()));
    let report = user.publishing_microphone().join_and_report().await.unwrap();

    assert_eq!(report.error, None, "{report:?}\n{}", worker.output());
    assert_eq!(report.agent_identity, Some(agent.identity));
    assert_eq!(report.identity.as_deref(), Some("ann"));
    assert_eq!(report.greeting.as_deref(), Some("Hello ann, this is session 4711."));
    assert_eq!((report.can_publish, report.published), (Some(true), Some(true)));
    // LiveKit adds an unnamed dispatch to each room that was not created with agents.
    let mut dispatches = server.dispatches(ROOM).await.unwrap();
    dispatches.retain(|dispatch| dispatch.agent_name == "testkit-greeter");
    assert_eq!(dispatches.len(), 1);
    server.delete_room(ROOM).await.unwrap();
    assert!(server.room(ROOM).await.unwrap().is_none());
}

#[tokio::test]
async fn track_without_grant_is_not_published() {
    let server = Server::shared().await.unwrap();
    let microphone_only = VideoGrants {
        can_publish: Some(true),
        can_publish_sources: vec!["microphone".to_owned()],
        ..VideoGrants::default()
    };
    let token = token(server, "grants", microphone_only);
    let user = User::new(server.url(), &token).greeting_timeout(Duration::ZERO);

    let (microphone, camera) = (
        user.clone().publishing_microphone().join_and_report().await.unwrap(),
        user.publishing_camera().join_and_report().await.unwrap(),
    );

    assert_eq!(microphone.published, Some(true), "{microphone:?}");
    assert_eq!(camera.published, Some(false), "{camera:?}");
}

#[tokio::test]
async fn webhook_signature_is_accepted_by_livekits_receiver() {
    let server = Server::shared().await.unwrap();
    let verifier = TokenVerifier::with_api_key(server.api_key(), server.api_secret());
    let receiver = WebhookReceiver::new(verifier);
    let body = r#"{"event": "room_started", "room": {"name": "signed"}}"#;
    let signature = server.sign_webhook(body);
    let event = receiver.receive(body, &signature).unwrap();
    assert_eq!(
        (event.event.as_str(), event.room.unwrap().name.as_str()),
        ("room_started", "signed")
    );
    receiver.receive(&body.replace("signed", "another"), &signature).unwrap_err();
}

#[tokio::test]
async fn refused_token_is_reported() {
    let server = Server::shared().await.unwrap();
    let report = User::new(server.url(), "nonsense").join_and_report().await.unwrap();
    assert!(!report.connected && report.error.is_some(), "{report:?}");
}

#[tokio::test]
async fn stopped_server_does_not_answer_and_restarts_without_rooms() {
    let mut server = Server::start().await.unwrap();
    server.dispatch("lost", "missing-agent", "").await.unwrap();
    server.stop().await.unwrap();
    assert!(server.rooms().await.is_err());
    server.restart().await.unwrap();
    assert_eq!(server.rooms().await.unwrap(), []);
}

#[tokio::test]
async fn paused_server_hangs_until_it_is_resumed() {
    let server = Server::start().await.unwrap();
    server.pause().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), server.rooms()).await.is_err());
    server.resume().unwrap();
    let rooms = wait_until("a response", Duration::from_secs(10), || async {
        Ok(Some(server.rooms().await?))
    });
    assert_eq!(rooms.await.unwrap(), []);
}
