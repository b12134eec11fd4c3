//! The whole of it, with nothing faked: an agent's worker and a user's client on a real LiveKit.

use std::time::Duration;

use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::user::User;
use serde_json::{Value, json};

use crate::app::{App, uuid};

#[tokio::test]
async fn a_started_session_has_its_agent_and_lets_its_user_in() {
    let livekit = Server::shared().await.unwrap();
    let agent = format!("greeter-{}", uuid());
    let _worker = Worker::start(livekit, &agent).await.unwrap();
    let app = App::start().await;
    for room_creation in ["on_start", "on_join"] {
        let template = app
            .template(json!({"agent_name": agent, "room_creation": room_creation, "modality_profile": "audio+text",
                             "enabled_panels": ["chat"]}))
            .await;
        let started = app.start_session(&template, json!({"user_id": "ann"})).await.body;
        let room = started["room_name"].as_str().unwrap();
        if room_creation == "on_start" {
            // Before any user came.
            livekit.agent_in(room, Duration::from_secs(20)).await.unwrap();
        }
        let user = User::new(
            started["server_url"].as_str().unwrap(),
            started["participant_token"].as_str().unwrap(),
        );
        let report = user
            .publishing_microphone()
            .greeting_within(Duration::from_secs(20))
            .join()
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
            "one agent, not two"
        );
    }
}

#[tokio::test]
async fn a_user_publishes_what_the_profile_allows_and_nothing_else() {
    let app = App::start().await;
    for (profile, microphone, camera) in [
        (json!("text"), false, false),
        (json!("audio"), true, false),
        (json!("camera"), false, true),
        (Value::Null, true, true),
    ] {
        let template = app.template(json!({"modality_profile": profile})).await;
        let started = app.start_session(&template, json!({})).await.body;
        let (url, token) = (
            started["server_url"].as_str().unwrap(),
            started["participant_token"].as_str().unwrap(),
        );
        let user = || User::new(url, token).greeting_within(Duration::ZERO);
        let heard = user().publishing_microphone().join().await.unwrap();
        let seen = user().publishing_camera().join().await.unwrap();
        assert_eq!(
            (heard.published, seen.published),
            (Some(microphone), Some(camera)),
            "{profile}: {heard:?} {seen:?}"
        );
    }
}
