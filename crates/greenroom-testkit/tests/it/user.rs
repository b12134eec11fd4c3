//! Tests of users that stay in a room.

use std::time::Duration;

use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::user::User;
use greenroom_testkit::wait_until;
use livekit_api::access_token::VideoGrants;

use crate::{token, token_of};

/// Maximum time until an event arrives.
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time until an SDK reconnects to a restarted server, on a busy machine.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(30);

fn ann(server: &Server, room: &str) -> User {
    User::new(server.url(), &token(server, room, VideoGrants::default()))
}

async fn sids(server: &Server, room: &str) -> Vec<String> {
    server
        .participants(room)
        .await
        .unwrap()
        .into_iter()
        .map(|participant| participant.sid)
        .collect()
}

#[tokio::test]
async fn user_stays_until_leave() {
    let server = Server::shared().await.unwrap();
    let user = ann(server, "stays").join_and_stay().await.unwrap();
    assert_eq!(sids(server, "stays").await, [user.sid().unwrap()]);

    user.leave().await.unwrap();

    wait_until("the room to be empty", EVENT_TIMEOUT, || async {
        Ok(server.participants("stays").await?.is_empty().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn livekit_does_not_notice_killed_user_at_once() {
    let server = Server::shared().await.unwrap();
    let user = ann(server, "killed-user").join_and_stay().await.unwrap();
    user.kill().await.unwrap();
    assert_eq!(server.participants("killed-user").await.unwrap().len(), 1);
}

#[tokio::test]
async fn users_receive_data_of_users_and_backend_by_topic() {
    let server = Server::shared().await.unwrap();
    let bob = token_of("bob", server, "data", VideoGrants::default());
    let (ann, bob) = tokio::join!(
        ann(server, "data").join_and_stay(),
        User::new(server.url(), &bob).join_and_stay()
    );
    let (ann, mut bob) = (ann.unwrap(), bob.unwrap());

    ann.send_data("other", "no").unwrap();
    ann.send_data("hello", "it is me").unwrap();
    assert_eq!(bob.wait_for_data("hello", EVENT_TIMEOUT).await.unwrap(), "it is me");
    server.send_data("data", "notice", b"five minutes").await.unwrap();
    assert_eq!(bob.wait_for_data("notice", EVENT_TIMEOUT).await.unwrap(), "five minutes");

    assert_eq!(bob.received_data("hello").unwrap(), ["it is me"]);
    assert!(ann.received_data("hello").unwrap().is_empty());
}

#[tokio::test]
async fn reloaded_user_is_new_participant() {
    let server = Server::shared().await.unwrap();
    let mut user = ann(server, "reload").join_and_stay().await.unwrap();
    let before = user.sid().unwrap();
    user.reload().await.unwrap();
    assert_ne!(user.sid().unwrap(), before);
    assert_eq!(sids(server, "reload").await, [user.sid().unwrap()]);
}

#[tokio::test]
async fn second_participant_with_same_identity_disconnects_first() {
    let server = Server::shared().await.unwrap();
    let mut first = ann(server, "twice").join_and_stay().await.unwrap();
    let second = ann(server, "twice").join_and_stay().await.unwrap();
    assert_eq!(first.wait_for_disconnect(EVENT_TIMEOUT).await.unwrap(), "DUPLICATE_IDENTITY");
    assert_eq!(sids(server, "twice").await, [second.sid().unwrap()]);
}

#[tokio::test]
async fn refused_user_is_reported_as_error() {
    let server = Server::shared().await.unwrap();
    let refused = User::new(server.url(), "nonsense").join_and_stay().await.unwrap_err();
    assert!(format!("{refused:#}").contains("Failed"), "{refused:#}");
}

#[tokio::test]
async fn user_and_agent_reconnect_to_restarted_server() {
    let mut server = Server::start().await.unwrap();
    let worker = ScriptedAgent::named("restart").start(&server).await.unwrap();
    server.dispatch("restart", "restart", "").await.unwrap();
    let agent = server.wait_for_agent("restart", RECONNECT_TIMEOUT).await.unwrap();
    let mut user = ann(&server, "restart").join_and_stay().await.unwrap();

    server.stop().await.unwrap();
    server.restart().await.unwrap();

    user.wait_for_reconnect(RECONNECT_TIMEOUT).await.unwrap();
    let again = server.wait_for_agent("restart", RECONNECT_TIMEOUT).await.unwrap();
    assert_eq!(again.identity, agent.identity);
    let sids = sids(&server, "restart").await;
    assert!(sids.len() == 2 && !sids.contains(&agent.sid), "{sids:?}");
    assert!(!sids.contains(&user.sid().unwrap()), "{sids:?}");
    wait_until("the worker to register again", RECONNECT_TIMEOUT, || async {
        Ok((worker.registration_count() == 2).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(worker.jobs().unwrap().len(), 1);
}
