//! Agents that behave as they are told.

use std::time::{Duration, Instant};

use greenroom_testkit::{
    agent::Actor,
    livekit::{Options, Server, USUAL_TARGET_LOAD},
    user::User,
    wait_until,
};
use livekit_api::access_token::VideoGrants;

use crate::token;

/// From a dispatch to the agent in the room, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// In which a dispatch that is lost would long have brought somebody.
const WHILE: Duration = Duration::from_secs(3);

async fn is_empty(server: &Server, room: &str) -> bool {
    server.participants(room).await.unwrap().is_empty()
}

async fn emptied(server: &Server, room: &str, timeout: Duration) {
    wait_until("the agent to be gone", timeout, || async {
        Ok(server.participants(room).await?.iter().all(|one| one.identity == "ann").then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_slow_agent_has_a_job_long_before_it_is_in_the_room() {
    let server = Server::shared().await.unwrap();
    let worker = Actor::named("slow").booting(Duration::from_secs(3)).start(server).await.unwrap();
    let dispatch = server.dispatch("slow", "slow", "some metadata").await.unwrap();
    wait_until("the job", SOON, || async { Ok((worker.jobs()?.len() == 1).then_some(())) })
        .await
        .unwrap();
    let begun = Instant::now();
    assert!(is_empty(server, "slow").await);

    let agent = server.agent_in("slow", SOON).await.unwrap();

    assert!(begun.elapsed() > Duration::from_secs(2), "it took {:?}", begun.elapsed());
    let job = worker.jobs().unwrap().pop().unwrap();
    assert_eq!((job.dispatch_id, job.room.as_str()), (dispatch.id, "slow"));
    assert_eq!(job.metadata, "some metadata");
    assert_eq!(agent.identity, format!("agent-{}", job.id));
}

#[tokio::test]
async fn an_agent_that_never_joins_has_a_job_and_is_in_no_room() {
    let server = Server::shared().await.unwrap();
    let worker = Actor::named("absent").never_joining().start(server).await.unwrap();
    server.dispatch("absent", "absent", "").await.unwrap();
    wait_until("the job", SOON, || async { Ok((worker.jobs()?.len() == 1).then_some(())) })
        .await
        .unwrap();
    server.agent_in("absent", WHILE).await.unwrap_err();
}

#[tokio::test]
async fn a_worker_that_is_full_loses_the_dispatch_and_a_second_of_its_name_takes_it() {
    let server = Server::shared().await.unwrap();
    let actor = Actor::named("full").at_most(1).idle_processes(1);
    let (one, other) = tokio::join!(actor.start(server), actor.launch(server));
    let (one, mut other) = (one.unwrap(), other.unwrap());
    other.registered().await.unwrap();
    for room in ["full-1", "full-2", "full-3"] {
        server.dispatch(room, "full", "").await.unwrap();
    }
    let begun = || Ok::<_, anyhow::Error>((one.jobs()?.len(), other.jobs()?.len()));
    wait_until("two jobs", SOON, || async { Ok((begun()? == (1, 1)).then_some(())) })
        .await
        .unwrap();

    wait_until("a third job", WHILE, || async { Ok((begun()? != (1, 1)).then_some(())) })
        .await
        .unwrap_err();
}

#[tokio::test]
async fn an_overloaded_worker_loses_the_dispatch_until_its_load_is_gone() {
    let options = Options { target_load: Some(USUAL_TARGET_LOAD), ..Options::default() };
    let server = Server::start_with(options).await.unwrap();
    let worker = Actor::named("loaded").loaded(0.95).start(&server).await.unwrap();
    server.dispatch("loaded", "loaded", "").await.unwrap();
    server.agent_in("loaded", WHILE).await.unwrap_err();
    assert!(worker.jobs().unwrap().is_empty());

    worker.set_load(0.0).unwrap();

    wait_until("a dispatch that is taken", SOON, || async {
        server.dispatch("loaded", "loaded", "").await?;
        Ok(server.agent_in("loaded", WHILE).await.is_ok().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_agent_hangs_up_when_told_to_when_its_time_is_over_or_at_once() {
    let server = Server::shared().await.unwrap();
    let (told, timed, hasty) = (
        Actor::named("told"),
        Actor::named("timed").staying(Duration::from_secs(1)),
        Actor::named("hasty").leaving_at_once(),
    );
    let workers = tokio::join!(told.start(server), timed.start(server), hasty.start(server));
    let hasty = workers.2.as_ref().unwrap();
    for name in ["told", "timed", "hasty"] {
        server.dispatch(name, name, "").await.unwrap();
    }
    server.agent_in("told", SOON).await.unwrap();
    server.agent_in("timed", SOON).await.unwrap();
    let user =
        |room: &str| User::new(server.url(), &token(server, room, VideoGrants::default())).enter();
    let users = tokio::join!(user("told"), user("timed"));
    let (with_told, _with_timed) = (users.0.unwrap(), users.1.unwrap());

    with_told.send("hangup", "").unwrap();

    emptied(server, "told", SOON).await;
    emptied(server, "timed", SOON).await;
    wait_until("the hasty job", SOON, || async { Ok((hasty.jobs()?.len() == 1).then_some(())) })
        .await
        .unwrap();
    emptied(server, "hasty", SOON).await;
}

#[tokio::test]
async fn the_agent_of_a_killed_worker_is_missed_only_later() {
    let server = Server::shared().await.unwrap();
    let worker = Actor::named("killed").start(server).await.unwrap();
    server.dispatch("killed", "killed", "").await.unwrap();
    server.agent_in("killed", SOON).await.unwrap();
    let killed = Instant::now();
    worker.kill().await.unwrap();
    emptied(server, "killed", Duration::from_secs(40)).await;
    let elapsed = killed.elapsed();
    assert!(elapsed > Duration::from_secs(10), "it said goodbye: gone after {elapsed:?}");
}
