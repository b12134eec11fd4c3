//! The webhooks of a real server: what it sends is what is verified and read.

use std::time::Duration;

use greenroom_livekit::webhook::{Webhook, WebhookEvent, WebhookVerifier};
use greenroom_livekit::{Dispatch, Rooms};
use greenroom_testkit::livekit::{Options, Server};
use greenroom_testkit::user::User;
use greenroom_testkit::wait_until;
use livekit_api::access_token::{AccessToken, VideoGrants};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

use crate::rooms::{config, room, rooms, settings};

const PATIENCE: Duration = Duration::from_secs(20);

/// What has arrived so far, in its order.
async fn received(hooks: &MockServer, verifier: &WebhookVerifier) -> Vec<Webhook> {
    let requests = hooks.received_requests().await.unwrap();
    let verify = |request: &wiremock::Request| {
        let token = request.headers.get("authorization").unwrap().to_str().unwrap();
        verifier.verify(token, &request.body).unwrap()
    };
    requests.iter().map(verify).collect()
}

#[tokio::test]
async fn what_a_server_tells_of_a_room_is_read() {
    let hooks = MockServer::start().await;
    Mock::given(matchers::any()).respond_with(ResponseTemplate::new(200)).mount(&hooks).await;
    let webhook_urls = vec![hooks.uri()];
    let server = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let verifier = WebhookVerifier::new(&config(&server));
    let (rooms, room) = (rooms(&server), room());
    let sid = rooms.create(&room, &settings(Dispatch::unserved())).await.unwrap();
    let grants = VideoGrants { room: room.to_string(), room_join: true, ..VideoGrants::default() };
    let token = AccessToken::with_api_key(server.api_key(), server.api_secret())
        .with_identity("ann")
        .with_grants(grants)
        .to_jwt()
        .unwrap();
    let user = User::new(server.url(), &token).greeting_within(Duration::ZERO);
    assert!(user.join().await.unwrap().connected);
    rooms.delete(&room).await.unwrap();

    let event = wait_until("the room to be event finished", PATIENCE, async || {
        let event = received(&hooks, &verifier).await;
        Ok(event.iter().any(|hook| hook.event == WebhookEvent::RoomFinished).then_some(event))
    });
    let event = event.await.unwrap();
    assert!(
        event.iter().all(|hook| hook.room.as_ref() == Some(&room) && hook.at.is_some()),
        "{event:?}"
    );
    let is = |kind: &dyn Fn(&WebhookEvent) -> bool| event.iter().position(|hook| kind(&hook.event));
    let started = is(&|event| *event == WebhookEvent::RoomStarted { sid: sid.clone() });
    let joined = is(&|event| matches!(event, WebhookEvent::Joined(stay) if stay.identity == "ann"));
    let left = is(
        &|event| matches!(event, WebhookEvent::Left(stay) if stay.reason.as_deref() == Some("CLIENT_INITIATED")),
    );
    let order = [started, joined, left];
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{event:?}");
}
