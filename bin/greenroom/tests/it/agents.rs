//! Agents that behave unusually on a real LiveKit, and agents that another party dispatched.

use std::time::Duration;

use chrono::{DateTime, Utc};
use greenroom_core::domain::lifecycle::JOB_ASSIGNMENT_TIMEOUT;
use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::{AgentDispatch, Options, Server};
use greenroom_testkit::pg::Database;
use greenroom_testkit::user::User;
use greenroom_testkit::{caller, ports, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{App, uuid};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Returns a join token like that of an agent's job.
fn agent_token(livekit: &Server, room: &str, identity: &str) -> String {
    let claims = json!({"iss": livekit.api_key(), "sub": identity, "exp": caller::seconds_from_now(600), "kind": "agent",
                        "video": {"room": room, "roomJoin": true, "agent": true, "canSubscribe": true}});
    caller::token(livekit.api_secret(), &claims)
}

/// Starts a session with an agent that has no worker. Returns its path and the name of its room.
async fn start_without_worker(app: &App, deadline_seconds: u32) -> (String, String) {
    let template = json!({"agent_name": format!("unserved-{}", uuid()), "agent_deadline_seconds": deadline_seconds});
    let template = app.create_template(template).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let room = started.body["room_name"].as_str().unwrap().to_owned();
    (started.header("location").to_owned(), room)
}

#[tokio::test]
async fn agent_without_media_connection_has_not_joined() {
    let app = App::start().await;
    let livekit = Server::shared().await.unwrap();
    let (session, room) = start_without_worker(&app, 8).await;
    // Open only the signal connection.
    let address = livekit.api_url().replace("http://", "");
    let mut signal = TcpStream::connect(&address).await.unwrap();
    let token = agent_token(livekit, &room, "agent-AJ_mute");
    let upgrade = format!(
        "GET /rtc?access_token={token}&protocol=15 HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    signal.write_all(upgrade.as_bytes()).await.unwrap();
    let mut status_line = [0; 12];
    signal.read_exact(&mut status_line).await.unwrap();
    assert_eq!(&status_line, b"HTTP/1.1 101");
    wait_until("LiveKit to list the agent", TIMEOUT, async || {
        let participants = livekit.participants(&room).await?;
        Ok(participants
            .iter()
            .any(|participant| participant.identity == "agent-AJ_mute")
            .then_some(()))
    })
    .await
    .expect("precondition: LiveKit lists the agent");

    let failed = app.wait_for_status(&session, "failed", TIMEOUT).await;
    assert_eq!(
        (&failed["end_reason"], &failed["agent_status"]),
        (&json!("agent_unavailable"), &json!("unavailable"))
    );
    let events = app.events(&session).await;
    assert!(!events.contains(&"agent_joined".to_owned()), "{events:?}");
}

#[tokio::test]
async fn agent_that_reconnects_has_not_left() {
    let (app, livekit) = app_with_webhooks().await;
    let (session, room) = start_without_worker(&app, 60).await;
    let agent = User::new(livekit.url(), &agent_token(&livekit, &room, "agent-AJ_twice"));
    let mut first = agent.clone().join_and_stay().await.unwrap();
    let status =
        async || Ok::<Value, anyhow::Error>(app.get(&session).await.body["agent_status"].clone());
    wait_until("the agent to be ready", TIMEOUT, async || {
        Ok((status().await? == "ready").then_some(()))
    })
    .await
    .unwrap();

    let second = agent.join_and_stay().await.unwrap();
    assert_eq!(
        first.wait_for_disconnect(TIMEOUT).await.unwrap(),
        "DUPLICATE_IDENTITY",
        "precondition"
    );
    // Greenroom observes the room every second and receives a webhook about the closed connection.
    wait_until("the second join to be in the timeline", TIMEOUT, async || {
        let joined =
            app.events(&session).await.iter().filter(|event| *event == "agent_joined").count();
        Ok((joined == 2).then_some(()))
    })
    .await
    .unwrap();
    for _ in 0..3 {
        let seen = app.get(&format!("{session}?wait_for=ended&timeout_seconds=1")).await;
        assert_eq!(seen.body["agent_status"], "ready", "{}", seen.body);
    }
    let events = app.events(&session).await;
    assert!(!events.contains(&"agent_left".to_owned()), "{events:?}");
    drop(second);
}

/// Starts Greenroom with a private LiveKit that sends webhooks.
async fn app_with_webhooks() -> (App, Server) {
    let address = format!("127.0.0.1:{}", ports::free_tcp_port().unwrap());
    let webhook_urls = vec![format!("http://{address}/webhooks/livekit")];
    let livekit = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let changed = [("GREENROOM_LISTEN", address.as_str()), ("GREENROOM_RECONCILE_SECONDS", "1")];
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &changed).await;
    (app, livekit)
}

#[tokio::test]
async fn foreign_agent_does_not_replace_session_agent() {
    let (app, livekit) = app_with_webhooks().await;
    let _worker = Worker::start(&livekit, "ours").await.unwrap();
    let template = json!({"agent_name": "ours", "agent_deadline_seconds": 120});
    let template = app.create_template(template).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let room = started.body["room_name"].as_str().unwrap();
    let ours = livekit.wait_for_agent(room, Duration::from_mins(1)).await.unwrap().identity;
    wait_until("LiveKit to list the job", TIMEOUT, async || {
        let listed = livekit.dispatches(room).await?;
        let has_job = |dispatch: &AgentDispatch| {
            dispatch.state.as_ref().is_some_and(|state| !state.jobs.is_empty())
        };
        Ok(listed.iter().any(has_job).then_some(()))
    })
    .await
    .unwrap();

    // The other agent joins before LiveKit lists the job of its dispatch.
    livekit.dispatch(room, "others", "{}").await.unwrap();
    let other = User::new(livekit.url(), &agent_token(&livekit, room, "agent-AJ_other"));
    let _other = other.join_and_stay().await.unwrap();
    for _ in 0..5 {
        let seen = app.get(&format!("{session}?wait_for=ended&timeout_seconds=1")).await;
        assert_eq!(seen.body["agent_status"], "ready", "{}", seen.body);
        let agents = livekit.inspect_room(room).active_agents().await.unwrap();
        assert!(
            agents.iter().any(|agent| agent.identity == ours),
            "our agent was removed: {agents:?}"
        );
        assert_eq!(agents.len(), 2, "the other agent stays as well");
    }
    assert_eq!(livekit.dispatches(room).await.unwrap().len(), 2);
}

#[tokio::test]
async fn agent_requested_by_token_is_dispatched_once() {
    let (app, livekit) = app_with_webhooks().await;
    let _worker = Worker::start(&livekit, "ours").await.unwrap();
    let template = json!({"agent_name": "ours", "room_creation": "on_join",
                          "agent_deadline_seconds": 120});
    let template = app.create_template(template).await;
    for _ in 0..3 {
        let started = app.start_session(&template, json!({"user_id": "ann"})).await;
        let session = started.header("location").to_owned();
        let room = started.body["room_name"].as_str().unwrap();
        let token = started.body["access_token"].as_str().unwrap();
        let _ann = User::new(livekit.url(), token).join_and_stay().await.unwrap();
        livekit.wait_for_agent(room, Duration::from_mins(1)).await.unwrap();
        let ready = app.get(&format!("{session}?wait_for=agent_ready&timeout_seconds=15")).await;
        assert_eq!(ready.body["agent_status"], "ready", "{}", ready.body);
        assert_dispatched_again_only_if_lost(&app, &session).await;
        assert_eq!(livekit.dispatches(room).await.unwrap().len(), 1);
    }
}

/// Asserts that no dispatch follows another before that one counts as lost. On a busy machine, a
/// worker may accept a job later than that. An event is written a moment after its decision, so half
/// of the time is enough: the duplicate of a dispatch follows within the interval of the checks, one
/// second.
async fn assert_dispatched_again_only_if_lost(app: &App, session: &str) {
    let timeline = app.get(&format!("{session}/timeline")).await.body;
    let entries = timeline.as_array().unwrap().iter();
    let dispatches: Vec<DateTime<Utc>> = entries
        .filter(|entry| entry["event"] == "agent_dispatched")
        .map(|entry| entry["at"].as_str().unwrap().parse().unwrap())
        .collect();
    let are_apart = |pair: &[DateTime<Utc>]| pair[1] - pair[0] >= JOB_ASSIGNMENT_TIMEOUT / 2;
    assert!(dispatches.windows(2).all(are_apart), "{timeline}");
}
