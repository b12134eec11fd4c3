//! Tests of scripted agents.

use std::time::{Duration, Instant};

use greenroom_testkit::agent::{ScriptedAgent, Worker};
use greenroom_testkit::livekit::{LIVEKIT_DEFAULT_TARGET_LOAD, Options, Server};
use greenroom_testkit::user::User;
use greenroom_testkit::wait_until;
use livekit_api::access_token::VideoGrants;

use crate::token;

/// Maximum time from a dispatch until the agent is in the room, on a busy machine.
const AGENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Time after which an agent that is not in the room is considered absent.
const ABSENCE_TIMEOUT: Duration = Duration::from_secs(3);

async fn is_empty(server: &Server, room: &str) -> bool {
    server.participants(room).await.unwrap().is_empty()
}

async fn wait_for_job(worker: &Worker) {
    wait_until("the job", AGENT_TIMEOUT, || async {
        Ok((worker.jobs()?.len() == 1).then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until no participant other than the user `ann` is in the room.
async fn wait_until_agent_left(server: &Server, room: &str, timeout: Duration) {
    wait_until("the agent to leave", timeout, || async {
        let participants = server.participants(room).await?;
        Ok(participants.iter().all(|participant| participant.identity == "ann").then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn slow_agent_has_job_before_it_joins_room() {
    let server = Server::shared().await.unwrap();
    let agent = ScriptedAgent::named("slow").join_delay(Duration::from_secs(3));
    let worker = agent.start(server).await.unwrap();
    let dispatch = server.dispatch("slow", "slow", "some metadata").await.unwrap();
    wait_for_job(&worker).await;
    let started = Instant::now();
    assert!(is_empty(server, "slow").await);

    let agent = server.wait_for_agent("slow", AGENT_TIMEOUT).await.unwrap();

    assert!(started.elapsed() > Duration::from_secs(2), "it took {:?}", started.elapsed());
    let job = worker.jobs().unwrap().pop().unwrap();
    assert_eq!((job.dispatch_id, job.room.as_str()), (dispatch.id, "slow"));
    assert_eq!(job.metadata, "some metadata");
    assert_eq!(agent.identity, format!("agent-{}", job.id));
}

#[tokio::test]
async fn never_joining_agent_has_job_and_is_not_in_room() {
    let server = Server::shared().await.unwrap();
    let worker = ScriptedAgent::named("absent").never_joining().start(server).await.unwrap();
    server.dispatch("absent", "absent", "").await.unwrap();
    wait_for_job(&worker).await;
    server.wait_for_agent("absent", ABSENCE_TIMEOUT).await.unwrap_err();
}

#[tokio::test]
async fn full_worker_leaves_dispatch_to_second_worker_and_third_dispatch_is_lost() {
    let server = Server::shared().await.unwrap();
    let agent = ScriptedAgent::named("full").max_jobs(1).idle_processes(1);
    let (first, second) = tokio::join!(agent.start(server), agent.spawn(server));
    let (first, mut second) = (first.unwrap(), second.unwrap());
    second.wait_until_registered().await.unwrap();
    for room in ["full-1", "full-2", "full-3"] {
        server.dispatch(room, "full", "").await.unwrap();
    }
    let jobs = || Ok::<_, anyhow::Error>((first.jobs()?.len(), second.jobs()?.len()));
    wait_until("two jobs", AGENT_TIMEOUT, || async { Ok((jobs()? == (1, 1)).then_some(())) })
        .await
        .unwrap();

    wait_until("a third job", ABSENCE_TIMEOUT, || async { Ok((jobs()? != (1, 1)).then_some(())) })
        .await
        .unwrap_err();
}

#[tokio::test]
async fn overloaded_worker_gets_no_job_until_its_load_drops() {
    let target_load = Some(LIVEKIT_DEFAULT_TARGET_LOAD);
    let server = Server::start_with(Options { target_load, ..Options::default() }).await.unwrap();
    let worker = ScriptedAgent::named("loaded").initial_load(0.95).start(&server).await.unwrap();
    server.dispatch("loaded", "loaded", "").await.unwrap();
    server.wait_for_agent("loaded", ABSENCE_TIMEOUT).await.unwrap_err();
    assert!(worker.jobs().unwrap().is_empty());

    worker.set_load(0.0).unwrap();

    wait_until("a dispatch that brings an agent", AGENT_TIMEOUT, || async {
        server.dispatch("loaded", "loaded", "").await?;
        Ok(server.wait_for_agent("loaded", ABSENCE_TIMEOUT).await.is_ok().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn agent_leaves_on_hangup_after_its_delay_or_after_joining() {
    let server = Server::shared().await.unwrap();
    let (hangup, delayed, immediate) = (
        ScriptedAgent::named("hangup"),
        ScriptedAgent::named("delayed").leaving_after(Duration::from_secs(1)),
        ScriptedAgent::named("immediate").leaving_at_once(),
    );
    let workers =
        tokio::join!(hangup.start(server), delayed.start(server), immediate.start(server));
    let immediate_worker = workers.2.as_ref().unwrap();
    for name in ["hangup", "delayed", "immediate"] {
        server.dispatch(name, name, "").await.unwrap();
    }
    server.wait_for_agent("hangup", AGENT_TIMEOUT).await.unwrap();
    server.wait_for_agent("delayed", AGENT_TIMEOUT).await.unwrap();
    let join = |room: &str| {
        let token = token(server, room, VideoGrants::default());
        User::new(server.url(), &token).join_and_stay()
    };
    let users = tokio::join!(join("hangup"), join("delayed"));
    let (hangup_user, _delayed_user) = (users.0.unwrap(), users.1.unwrap());

    hangup_user.send_data("hangup", "").unwrap();

    wait_until_agent_left(server, "hangup", AGENT_TIMEOUT).await;
    wait_until_agent_left(server, "delayed", AGENT_TIMEOUT).await;
    wait_for_job(immediate_worker).await;
    wait_until_agent_left(server, "immediate", AGENT_TIMEOUT).await;
}

#[tokio::test]
async fn livekit_notices_killed_agent_only_after_ten_seconds() {
    let server = Server::shared().await.unwrap();
    let worker = ScriptedAgent::named("killed").start(server).await.unwrap();
    server.dispatch("killed", "killed", "").await.unwrap();
    server.wait_for_agent("killed", AGENT_TIMEOUT).await.unwrap();
    let killed = Instant::now();
    worker.kill().await.unwrap();
    wait_until_agent_left(server, "killed", Duration::from_secs(40)).await;
    let elapsed = killed.elapsed();
    assert!(elapsed > Duration::from_secs(10), "the agent disconnected after {elapsed:?}");
}
