//! The server, the agent worker and the user together.

use std::time::Duration;

use greenroom_testkit::{agent::Worker, livekit::Server, user::User, wait_until};
use livekit_api::{
    access_token::{TokenVerifier, VideoGrants},
    webhooks::WebhookReceiver,
};

use crate::token;

const ROOM: &str = "testkit";

#[tokio::test]
async fn an_agent_that_was_asked_for_comes_and_greets_the_user() {
    let server = Server::shared().await.unwrap();
    let worker = Worker::start(server, "testkit-greeter").await.unwrap();
    server.dispatch(ROOM, "testkit-greeter", r#"{"session_id": "4711"}"#).await.unwrap();
    let agent = server.agent_in(ROOM, Duration::from_secs(20)).await.unwrap();

    let user = User::new(server.url(), &token(server, ROOM, VideoGrants::default()));
    let report = user.publishing_microphone().join().await.unwrap();

    assert_eq!(report.error, None, "{report:?}\n{}", worker.output());
    assert_eq!(report.agent_identity, Some(agent.identity));
    assert_eq!(report.identity.as_deref(), Some("ann"));
    assert_eq!(report.greeting.as_deref(), Some("Hello ann, this is session 4711."));
    assert_eq!((report.can_publish, report.published), (Some(true), Some(true)));
    // LiveKit adds an unnamed one to every room that was not created with agents.
    let dispatches = server.dispatches(ROOM).await.unwrap();
    assert_eq!(dispatches.iter().filter(|one| one.agent_name == "testkit-greeter").count(), 1);
    server.delete_room(ROOM).await.unwrap();
    assert!(server.room(ROOM).await.unwrap().is_none());
}

#[tokio::test]
async fn a_track_that_was_not_granted_is_not_published() {
    let server = Server::shared().await.unwrap();
    let only_the_microphone = VideoGrants {
        can_publish: Some(true),
        can_publish_sources: vec!["microphone".to_owned()],
        ..VideoGrants::default()
    };
    let token = token(server, "grants", only_the_microphone);
    let user = User::new(server.url(), &token).greeting_within(Duration::ZERO);

    let (microphone, camera) = (
        user.clone().publishing_microphone().join().await.unwrap(),
        user.publishing_camera().join().await.unwrap(),
    );

    assert_eq!(microphone.published, Some(true), "{microphone:?}");
    assert_eq!(camera.published, Some(false), "{camera:?}");
}

#[tokio::test]
async fn a_signature_is_one_that_livekits_own_receiver_takes() {
    let server = Server::shared().await.unwrap();
    let verifier = TokenVerifier::with_api_key(server.api_key(), server.api_secret());
    let receiver = WebhookReceiver::new(verifier);
    let body = r#"{"event": "room_started", "room": {"name": "told-of"}}"#;
    let signature = server.signature_of(body);
    let event = receiver.receive(body, &signature).unwrap();
    assert_eq!(
        (event.event.as_str(), event.room.unwrap().name.as_str()),
        ("room_started", "told-of")
    );
    receiver.receive(&body.replace("told-of", "another"), &signature).unwrap_err();
}

#[tokio::test]
async fn a_refused_token_is_reported() {
    let server = Server::shared().await.unwrap();
    let report = User::new(server.url(), "nonsense").join().await.unwrap();
    assert!(!report.connected && report.error.is_some(), "{report:?}");
}

#[tokio::test]
async fn a_stopped_server_answers_nothing_and_comes_back_empty() {
    let mut server = Server::start().await.unwrap();
    server.dispatch("lost", "nobody", "").await.unwrap();
    server.stop().await.unwrap();
    assert!(server.rooms().await.is_err());
    server.restart().await.unwrap();
    assert_eq!(server.rooms().await.unwrap(), []);
}

#[tokio::test]
async fn a_hanging_server_goes_on() {
    let server = Server::start().await.unwrap();
    server.pause().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), server.rooms()).await.is_err());
    server.resume().unwrap();
    let rooms = wait_until("an answer", Duration::from_secs(10), || async {
        Ok(Some(server.rooms().await?))
    });
    assert_eq!(rooms.await.unwrap(), []);
}
