//! Users who stay.

use std::time::Duration;

use greenroom_testkit::{agent::Actor, livekit::Server, user::User, wait_until};
use livekit_api::access_token::VideoGrants;

use crate::{token, token_of};

const SOON: Duration = Duration::from_secs(10);

/// What the SDKs may take on a busy machine to find a server again.
const LATER: Duration = Duration::from_secs(30);

fn ann(server: &Server, room: &str) -> User {
    User::new(server.url(), &token(server, room, VideoGrants::default()))
}

async fn sids(server: &Server, room: &str) -> Vec<String> {
    server.participants(room).await.unwrap().into_iter().map(|one| one.sid).collect()
}

#[tokio::test]
async fn a_user_stays_until_told_to_leave() {
    let server = Server::shared().await.unwrap();
    let user = ann(server, "stays").enter().await.unwrap();
    assert_eq!(sids(server, "stays").await, [user.sid().unwrap()]);

    user.leave().await.unwrap();

    wait_until("the room to be empty", SOON, || async {
        Ok(server.participants("stays").await?.is_empty().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_user_that_vanishes_is_missed_only_later() {
    let server = Server::shared().await.unwrap();
    let user = ann(server, "vanishes").enter().await.unwrap();
    user.vanish().await.unwrap();
    assert_eq!(server.participants("vanishes").await.unwrap().len(), 1);
}

#[tokio::test]
async fn users_hear_each_other_and_the_backend_by_topic() {
    let server = Server::shared().await.unwrap();
    let bob = token_of("bob", server, "data", VideoGrants::default());
    let (ann, bob) =
        tokio::join!(ann(server, "data").enter(), User::new(server.url(), &bob).enter());
    let (ann, mut bob) = (ann.unwrap(), bob.unwrap());

    ann.send("other", "no").unwrap();
    ann.send("hello", "it is me").unwrap();
    assert_eq!(bob.receive("hello", SOON).await.unwrap(), "it is me");
    server.send_data("data", "notice", b"five minutes").await.unwrap();
    assert_eq!(bob.receive("notice", SOON).await.unwrap(), "five minutes");

    assert_eq!(bob.received("hello").unwrap(), ["it is me"]);
    assert!(ann.received("hello").unwrap().is_empty());
}

#[tokio::test]
async fn a_user_that_reloads_is_another_participant() {
    let server = Server::shared().await.unwrap();
    let mut user = ann(server, "reload").enter().await.unwrap();
    let before = user.sid().unwrap();
    user.reload().await.unwrap();
    assert_ne!(user.sid().unwrap(), before);
    assert_eq!(sids(server, "reload").await, [user.sid().unwrap()]);
}

#[tokio::test]
async fn the_second_of_one_identity_throws_out_the_first() {
    let server = Server::shared().await.unwrap();
    let mut first = ann(server, "twice").enter().await.unwrap();
    let second = ann(server, "twice").enter().await.unwrap();
    assert_eq!(first.disconnected(SOON).await.unwrap(), "DUPLICATE_IDENTITY");
    assert_eq!(sids(server, "twice").await, [second.sid().unwrap()]);
}

#[tokio::test]
async fn a_user_who_is_not_let_in_is_an_error_that_says_so() {
    let server = Server::shared().await.unwrap();
    let refused = User::new(server.url(), "nonsense").enter().await.unwrap_err();
    assert!(format!("{refused:#}").contains("Failed"), "{refused:#}");
}

#[tokio::test]
async fn a_user_and_an_agent_come_back_by_themselves_to_a_server_that_was_restarted() {
    let mut server = Server::start().await.unwrap();
    let worker = Actor::named("comes-back").start(&server).await.unwrap();
    server.dispatch("comes-back", "comes-back", "").await.unwrap();
    let agent = server.agent_in("comes-back", LATER).await.unwrap();
    let mut user = ann(&server, "comes-back").enter().await.unwrap();

    server.stop().await.unwrap();
    server.restart().await.unwrap();

    user.reconnected(LATER).await.unwrap();
    let again = server.agent_in("comes-back", LATER).await.unwrap();
    assert_eq!(again.identity, agent.identity);
    let sids = sids(&server, "comes-back").await;
    assert!(sids.len() == 2 && !sids.contains(&agent.sid), "{sids:?}");
    assert!(!sids.contains(&user.sid().unwrap()), "{sids:?}");
    wait_until("the worker to register again", LATER, || async {
        Ok((worker.registrations() == 2).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(worker.jobs().unwrap().len(), 1);
}
