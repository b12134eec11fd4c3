//! Complete sessions: an agent's worker and a user's client on a real LiveKit server.

use std::time::Duration;

use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::user::User;
use serde_json::{Value, json};

use crate::app::{App, uuid};

#[tokio::test]
async fn started_session_gets_agent_and_admits_user() {
    let livekit = Server::shared().await.unwrap();
    let agent = format!("greeter-{}", uuid());
    let _worker = Worker::start(livekit, &agent).await.unwrap();
    let app = App::start().await;
    for room_creation in ["on_start", "on_join"] {
        let template = app
            .create_template(json!({"agent_name": agent, "room_creation": room_creation, "modality_profile": "audio+text",
                             "enabled_panels": ["chat"]}))
            .await;
        let started = app.start_session(&template, json!({"user_id": "ann"})).await.body;
        let room = started["room_name"].as_str().unwrap();
        if room_creation == "on_start" {
            // The agent joins without waiting for the user.
            livekit.wait_for_agent(room, Duration::from_secs(20)).await.unwrap();
        }
        let user = User::new(
            started["server_url"].as_str().unwrap(),
            started["participant_token"].as_str().unwrap(),
        );
        let report = user
            .publishing_microphone()
            .greeting_timeout(Duration::from_secs(20))
            .join_and_report()
            .await
            .unwrap();

        assert_eq!(report.room.as_deref(), Some(room));
        assert_eq!(report.identity.as_deref(), Some("ann"));
        assert!(
            report.greeting.as_ref().unwrap().contains(started["session_id"].as_str().unwrap()),
            "{report:?}"
        );
        assert_eq!(report.published, Some(true), "{report:?}");
        let metadata: Value = serde_json::from_str(report.metadata.as_deref().unwrap()).unwrap();
        assert_eq!(metadata["session_id"], started["session_id"]);
        assert_eq!(metadata["enabled_panels"], json!(["chat"]));
        let agents = livekit.dispatches(room).await.unwrap();
        assert_eq!(
            agents.iter().filter(|dispatch| dispatch.agent_name == agent).count(),
            1,
            "the agent was dispatched once"
        );
    }
}

#[tokio::test]
async fn user_publishes_only_what_profile_allows() {
    let app = App::start().await;
    for (profile, microphone, camera) in [
        (json!("text"), false, false),
        (json!("audio"), true, false),
        (json!("camera"), false, true),
        (Value::Null, true, true),
    ] {
        let template = app.create_template(json!({"modality_profile": profile})).await;
        let started = app.start_session(&template, json!({})).await.body;
        let (url, token) = (
            started["server_url"].as_str().unwrap(),
            started["participant_token"].as_str().unwrap(),
        );
        let user = || User::new(url, token).greeting_timeout(Duration::ZERO);
        let audio = user().publishing_microphone().join_and_report().await.unwrap();
        let video = user().publishing_camera().join_and_report().await.unwrap();
        assert_eq!(
            (audio.published, video.published),
            (Some(microphone), Some(camera)),
            "{profile}: {audio:?} {video:?}"
        );
    }
}
