//! Tests of every method of `Rooms`, by the resulting state in LiveKit.

use std::collections::HashMap;
use std::time::Duration;

use chrono::DateTime;
use greenroom_domain::lifecycle::{
    Dispatch as ListedDispatch, DispatchOwner, Participant, ParticipantKind,
};
use greenroom_domain::template::ReconnectWindow;
use greenroom_domain::{AgentName, OrganizationId, RoomName, SessionId, SessionTemplateId};
use greenroom_livekit::{
    AgentDispatch, JobMetadata, KeyPair, LiveKitConfig, LiveKitError, LiveKitRooms, RoomSettings,
    Rooms,
};
use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::{random_hex, wait_until};
use uuid::Uuid;

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

pub fn config(server: &Server) -> LiveKitConfig {
    let key = KeyPair::new(server.api_key().parse().unwrap(), server.api_secret().parse().unwrap());
    LiveKitConfig::new(server.url().parse().unwrap(), key)
}

pub fn rooms(server: &Server) -> LiveKitRooms {
    LiveKitRooms::new(&config(server)).unwrap()
}

/// Returns the name of a room that no other test uses.
pub fn room() -> RoomName {
    let suffix = u64::from_str_radix(&random_hex().unwrap(), 16).unwrap();
    let second = i64::try_from(suffix >> 34).unwrap();
    RoomName::new(DateTime::from_timestamp(second, 0).unwrap(), (suffix & 0xff_ffff) as u32)
}

fn agent(name: &str) -> (AgentName, AgentDispatch) {
    let name = AgentName::try_from(name.to_owned()).unwrap();
    let metadata = JobMetadata {
        session_id: SessionId(Uuid::nil()),
        organization_id: OrganizationId(Uuid::nil()),
        session_template_id: SessionTemplateId(Uuid::nil()),
        user_id: None,
        private: None,
    };
    let dispatch = metadata.dispatch(&name);
    (name, dispatch)
}

pub fn settings(dispatch: AgentDispatch) -> RoomSettings {
    RoomSettings::new(60, ReconnectWindow::constant::<60>(), dispatch)
}

#[tokio::test]
async fn room_is_opened_listed_and_deleted() {
    let rooms = rooms(Server::shared().await.unwrap());
    let (opened, missing) = (room(), room());
    let sid = rooms.create(&opened, &settings(AgentDispatch::unserved())).await.unwrap();
    let again = rooms.create(&opened, &settings(AgentDispatch::unserved())).await;
    assert_eq!(again.expect("creating a room is idempotent"), sid);
    let listed = rooms.list(&[opened.clone(), missing.clone()]).await.unwrap();
    assert_eq!(listed, HashMap::from([(opened.clone(), Ok(sid))]), "{missing} does not exist");
    assert!(rooms.list(&[]).await.unwrap().is_empty(), "an empty list of names returns no rooms");
    rooms.send(&opened, "greenroom.ending", b"{}".to_vec()).await.unwrap();
    rooms.delete(&opened).await.unwrap();
    assert!(rooms.list(std::slice::from_ref(&opened)).await.unwrap().is_empty());
    rooms.delete(&opened).await.expect("deleting a missing room succeeds");
}

#[tokio::test]
async fn missing_rooms_and_dispatches_are_not_failures() {
    let rooms = rooms(Server::shared().await.unwrap());
    assert!(rooms.participants(&room()).await.unwrap().is_empty());
    rooms.delete(&room()).await.unwrap();
    // Only the room's node lists its dispatches, and a missing room has no node. Callers list
    // dispatches only of rooms that they have observed.
    let (name, _) = agent("absent-agent");
    let listed = rooms.dispatches(&room(), Some(&name)).await;
    assert!(matches!(listed, Err(LiveKitError::NoNode(_))), "{listed:?}");
    let opened = room();
    rooms.create(&opened, &settings(AgentDispatch::unserved())).await.unwrap();
    let listed = rooms.dispatches(&opened, Some(&name)).await.unwrap();
    let is_unserved = matches!(listed[..], [ListedDispatch { owner: DispatchOwner::Unserved, .. }]);
    assert!(is_unserved, "{listed:?}");
    rooms.delete_dispatch(&opened, "AD_unknown").await.unwrap();
    rooms.delete(&opened).await.unwrap();
}

#[tokio::test]
async fn agent_is_dispatched_listed_and_removed() {
    let server = Server::shared().await.unwrap();
    let rooms = rooms(server);
    let (name, dispatch) = agent(&format!("rooms-{}", random_hex().unwrap()));
    let room = room();
    // Without a worker LiveKit responds OK, and the dispatch is lost.
    rooms.create(&room, &settings(dispatch.clone())).await.unwrap();
    let lost = rooms.dispatches(&room, Some(&name)).await.unwrap();
    assert_eq!((lost.len(), lost[0].jobs.len()), (1, 0), "{lost:?}");
    rooms.delete_dispatch(&room, &lost[0].id).await.unwrap();
    assert!(rooms.dispatches(&room, Some(&name)).await.unwrap().is_empty());

    let _worker = Worker::start(server, name.as_str()).await.unwrap();
    rooms.dispatch(&room, &dispatch).await.unwrap();
    let agent = wait_until("the agent to join", WAIT_TIMEOUT, async || {
        let participants = rooms.participants(&room).await?;
        let is_agent = |participant: &Participant| {
            participant.kind == ParticipantKind::Agent && participant.is_active
        };
        Ok(participants.into_iter().find(is_agent))
    });
    let agent = agent.await.unwrap();
    // LiveKit lists the job up to five seconds after its agent joined.
    let accepted = wait_until("the job to be listed", WAIT_TIMEOUT, async || {
        let listed = rooms.dispatches(&room, Some(&name)).await?;
        Ok(listed.iter().any(|dispatch| !dispatch.jobs.is_empty()).then_some(listed))
    });
    let accepted = accepted.await.unwrap();
    assert_eq!(accepted.len(), 1);
    let job = &accepted[0].jobs[0];
    assert!(job.is_live && accepted[0].created_at > 0, "{accepted:?}");
    assert_eq!(job.participant_identity, agent.identity);

    rooms.delete_dispatch(&room, &accepted[0].id).await.unwrap();
    let gone = wait_until("the agent to leave", WAIT_TIMEOUT, async || {
        Ok(rooms.participants(&room).await?.is_empty().then_some(()))
    });
    gone.await.unwrap();
    rooms.delete(&room).await.unwrap();
}

#[tokio::test]
async fn calls_to_stopped_server_are_unavailable() {
    let mut server = Server::start().await.unwrap();
    let rooms = rooms(&server);
    let (name, _) = agent("absent-agent");
    server.stop().await.unwrap();
    let room = room();
    for failed in [
        rooms.list(std::slice::from_ref(&room)).await.map(drop),
        rooms.participants(&room).await.map(drop),
        rooms.dispatches(&room, Some(&name)).await.map(drop),
        rooms.delete(&room).await,
    ] {
        assert!(matches!(failed, Err(LiveKitError::Unavailable(_))), "{failed:?}");
    }
}
