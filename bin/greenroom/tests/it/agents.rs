//! Participants of kind AGENT on a real LiveKit that do what no agent should.

use std::time::Duration;

use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::{AgentDispatch, Options, Server};
use greenroom_testkit::pg::Database;
use greenroom_testkit::user::User;
use greenroom_testkit::{caller, place, wait_until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{App, uuid};

const PATIENCE: Duration = Duration::from_secs(20);

/// What LiveKit hands the agent of a job, to join with.
fn agent_token(livekit: &Server, room: &str, identity: &str) -> String {
    let claims = json!({"iss": livekit.api_key(), "sub": identity, "exp": caller::in_seconds(600), "kind": "agent",
                        "video": {"room": room, "roomJoin": true, "agent": true, "canSubscribe": true}});
    caller::token(livekit.api_secret(), &claims)
}

/// A room whose agent, which nobody serves, is waited for so long.
async fn waiting_for_agent(app: &App, seconds: u32) -> (String, String) {
    let template =
        json!({"agent_name": format!("nobody-{}", uuid()), "agent_deadline_seconds": seconds});
    let template = app.template(template).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let room = started.body["room_name"].as_str().unwrap().to_owned();
    (started.header("location").to_owned(), room)
}

#[tokio::test]
async fn one_that_never_connects_its_media_is_not_there() {
    let app = App::start().await;
    let livekit = Server::shared().await.unwrap();
    let (session, room) = waiting_for_agent(&app, 8).await;
    // It opens the signal connection, and that is all.
    let address = livekit.api_url().replace("http://", "");
    let mut signal = TcpStream::connect(&address).await.unwrap();
    let token = agent_token(livekit, &room, "agent-AJ_mute");
    let upgrade = format!(
        "GET /rtc?access_token={token}&protocol=15 HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    signal.write_all(upgrade.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    signal.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    wait_until("LiveKit to show it", PATIENCE, async || {
        let all = livekit.participants(&room).await?;
        Ok(all.iter().any(|one| one.identity == "agent-AJ_mute").then_some(()))
    })
    .await
    .expect("the control: somebody is in the room");

    let failed = app.becomes(&session, "failed", PATIENCE).await;
    assert_eq!(
        (&failed["end_reason"], &failed["agent_status"]),
        (&json!("agent_unavailable"), &json!("unavailable"))
    );
    let events = app.events(&session).await;
    assert!(!events.contains(&"agent_joined".to_owned()), "{events:?}");
}

#[tokio::test]
async fn one_that_joins_twice_has_not_left() {
    let (app, livekit) = told().await;
    let (session, room) = waiting_for_agent(&app, 60).await;
    let agent = User::new(livekit.url(), &agent_token(&livekit, &room, "agent-AJ_twice"));
    let mut first = agent.clone().enter().await.unwrap();
    let status =
        async || Ok::<Value, anyhow::Error>(app.get(&session).await.body["agent_status"].clone());
    wait_until("it to be known", PATIENCE, async || Ok((status().await? == "ready").then_some(())))
        .await
        .unwrap();

    let second = agent.enter().await.unwrap();
    assert_eq!(first.disconnected(PATIENCE).await.unwrap(), "DUPLICATE_IDENTITY", "the control");
    // Looks every second, and the webhook of the first one's departure.
    wait_until("the second joining to be told", PATIENCE, async || {
        let joined =
            app.events(&session).await.iter().filter(|event| *event == "agent_joined").count();
        Ok((joined == 2).then_some(()))
    })
    .await
    .unwrap();
    for _ in 0..3 {
        let looked = app.get(&format!("{session}?wait_for=ended&timeout_seconds=1")).await;
        assert_eq!(looked.body["agent_status"], "ready", "{}", looked.body);
    }
    let events = app.events(&session).await;
    assert!(!events.contains(&"agent_left".to_owned()), "{events:?}");
    drop(second);
}

/// An application that its own LiveKit tells of everything.
async fn told() -> (App, Server) {
    let address = format!("127.0.0.1:{}", place::free_tcp_port().unwrap());
    let webhook_urls = vec![format!("http://{address}/webhooks/livekit")];
    let livekit = Server::start_with(Options { webhook_urls, ..Options::default() }).await.unwrap();
    let changed = [("GREENROOM_LISTEN", address.as_str()), ("GREENROOM_RECONCILE_SECONDS", "1")];
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &changed).await;
    (app, livekit)
}

#[tokio::test]
async fn one_that_somebody_else_asks_for_replaces_none() {
    let (app, livekit) = told().await;
    let _worker = Worker::start(&livekit, "ours").await.unwrap();
    let template = json!({"agent_name": "ours", "agent_deadline_seconds": 120});
    let template = app.template(template).await;
    let started = app.start_session(&template, json!({"user_id": "ann"})).await;
    let session = started.header("location").to_owned();
    let room = started.body["room_name"].as_str().unwrap();
    let ours = livekit.agent_in(room, Duration::from_mins(1)).await.unwrap().identity;
    wait_until("our job to be shown", PATIENCE, async || {
        let listed = livekit.dispatches(room).await?;
        let is_shown =
            |one: &AgentDispatch| one.state.as_ref().is_some_and(|state| !state.jobs.is_empty());
        Ok(listed.iter().any(is_shown).then_some(()))
    })
    .await
    .unwrap();

    // Another is there before LiveKit shows the job that brought it.
    livekit.dispatch(room, "others", "{}").await.unwrap();
    let other = User::new(livekit.url(), &agent_token(&livekit, room, "agent-AJ_other"));
    let _other = other.enter().await.unwrap();
    for _ in 0..5 {
        let looked = app.get(&format!("{session}?wait_for=ended&timeout_seconds=1")).await;
        assert_eq!(looked.body["agent_status"], "ready", "{}", looked.body);
        let agents = livekit.view(room).agents().await.unwrap();
        assert!(agents.iter().any(|one| one.identity == ours), "ours was taken back: {agents:?}");
        assert_eq!(agents.len(), 2, "and the other is left alone");
    }
    assert_eq!(livekit.dispatches(room).await.unwrap().len(), 2);
}

#[tokio::test]
async fn one_that_the_token_asks_for_is_asked_for_once() {
    let (app, livekit) = told().await;
    let _worker = Worker::start(&livekit, "ours").await.unwrap();
    let template = json!({"agent_name": "ours", "room_creation": "on_join"});
    let template = app.template(template).await;
    for _ in 0..3 {
        let started = app.start_session(&template, json!({"user_id": "ann"})).await;
        let session = started.header("location").to_owned();
        let room = started.body["room_name"].as_str().unwrap();
        let token = started.body["access_token"].as_str().unwrap();
        let _ann = User::new(livekit.url(), token).enter().await.unwrap();
        let ready = app.get(&format!("{session}?wait_for=agent_ready&timeout_seconds=15")).await;
        assert_eq!(ready.body["agent_status"], "ready", "{}", ready.body);
        let events = app.events(&session).await;
        let asked = events.iter().filter(|event| *event == "agent_dispatched").count();
        assert!(asked <= 1, "{events:?}");
        assert_eq!(livekit.dispatches(room).await.unwrap().len(), 1);
    }
}
