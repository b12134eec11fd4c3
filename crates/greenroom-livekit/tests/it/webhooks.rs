//! A test of the webhooks that a real LiveKit server sends.

use std::time::Duration;

use greenroom_livekit::webhook::{Webhook, WebhookEvent, WebhookVerifier};
use greenroom_livekit::{AgentDispatch, Rooms};
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::user::User;
use greenroom_testkit::wait_until;
use livekit_api::access_token::{AccessToken, VideoGrants};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

use crate::rooms::{config, room, rooms, settings};

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Verifies the webhooks received so far, and returns them in order.
async fn received(hooks: &MockServer, verifier: &WebhookVerifier) -> Vec<Webhook> {
    let requests = hooks.received_requests().await.unwrap();
    let verify = |request: &wiremock::Request| {
        let token = request.headers.get("authorization").unwrap().to_str().unwrap();
        verifier.verify(token, &request.body).unwrap()
    };
    requests.iter().map(verify).collect()
}

#[tokio::test]
async fn webhooks_of_a_room_are_verified_and_parsed_in_order() {
    let hooks = MockServer::start().await;
    Mock::given(matchers::any()).respond_with(ResponseTemplate::new(200)).mount(&hooks).await;
    let webhook_urls = vec![hooks.uri()];
    let server = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let verifier = WebhookVerifier::new(&config(&server));
    let (rooms, room) = (rooms(&server), room());
    let sid = rooms.create(&room, &settings(AgentDispatch::unserved())).await.unwrap();
    let grants = VideoGrants { room: room.to_string(), room_join: true, ..VideoGrants::default() };
    let token = AccessToken::with_api_key(server.api_key(), server.api_secret())
        .with_identity("ann")
        .with_grants(grants)
        .to_jwt()
        .unwrap();
    let user = User::new(server.url(), &token).greeting_timeout(Duration::ZERO);
    assert!(user.join_and_report().await.unwrap().connected);
    rooms.delete(&room).await.unwrap();

    let webhooks = wait_until("the webhook room_finished", WAIT_TIMEOUT, async || {
        let webhooks = received(&hooks, &verifier).await;
        let is_finished =
            webhooks.iter().any(|webhook| webhook.event == WebhookEvent::RoomFinished);
        Ok(is_finished.then_some(webhooks))
    });
    let webhooks = webhooks.await.unwrap();
    let is_complete =
        |webhook: &Webhook| webhook.room.as_ref() == Some(&room) && webhook.at.is_some();
    assert!(webhooks.iter().all(is_complete), "{webhooks:?}");
    let position = |matches: &dyn Fn(&WebhookEvent) -> bool| {
        webhooks.iter().position(|webhook| matches(&webhook.event))
    };
    let started = position(&|event| *event == WebhookEvent::RoomStarted { sid: sid.clone() });
    let joined = position(&|event| match event {
        WebhookEvent::Joined(participant) => participant.identity == "ann",
        _ => false,
    });
    let left = position(&|event| match event {
        WebhookEvent::Left(participant) => {
            participant.reason.as_deref() == Some("CLIENT_INITIATED")
        }
        _ => false,
    });
    let order = [started, joined, left];
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{webhooks:?}");
}
