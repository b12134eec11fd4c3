//! Every call of the port, by what LiveKit has afterwards.

use std::collections::HashMap;
use std::time::Duration;

use chrono::DateTime;
use greenroom_domain::lifecycle::{Dispatch as Asked, DispatchOwner, ParticipantKind};
use greenroom_domain::template::ReconnectWindow;
use greenroom_domain::{AgentName, OrganizationId, RoomName, SessionId, SessionTemplateId};
use greenroom_livekit::{
    Dispatch, JobMetadata, KeyPair, LiveKitConfig, LiveKitError, LiveKitRooms, RoomSettings, Rooms,
};
use greenroom_testkit::agent::Worker;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::{place, wait_until};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

pub fn config(server: &Server) -> LiveKitConfig {
    LiveKitConfig {
        url: server.url().parse().unwrap(),
        api_url: server.url().parse().unwrap(),
        key: KeyPair { api_key: server.api_key().into(), api_secret: server.api_secret().into() },
        previous_key: None,
    }
}

pub fn rooms(server: &Server) -> LiveKitRooms {
    LiveKitRooms::new(&config(server)).unwrap()
}

/// A room nobody else has.
pub fn room() -> RoomName {
    let suffix = u64::from_str_radix(&place::random_hex().unwrap(), 16).unwrap();
    let second = i64::try_from(suffix >> 34).unwrap();
    RoomName::new(DateTime::from_timestamp(second, 0).unwrap(), (suffix & 0xff_ffff) as u32)
}

fn agent(name: &str) -> (AgentName, Dispatch) {
    let name = AgentName::try_from(name.to_owned()).unwrap();
    let metadata = JobMetadata {
        session_id: SessionId(Uuid::nil()),
        organization_id: OrganizationId(Uuid::nil()),
        session_template_id: SessionTemplateId(Uuid::nil()),
        user_id: None,
        private: None,
    };
    let dispatch = Dispatch::new(&name, &metadata);
    (name, dispatch)
}

pub fn settings(dispatch: Dispatch) -> RoomSettings {
    RoomSettings::new(60, ReconnectWindow::constant::<60>(), dispatch)
}

#[tokio::test]
async fn a_room_is_opened_listed_and_deleted() {
    let rooms = rooms(Server::shared().await.unwrap());
    let (one, other) = (room(), room());
    let sid = rooms.create(&one, &settings(Dispatch::unserved())).await.unwrap();
    let again = rooms.create(&one, &settings(Dispatch::unserved())).await;
    assert_eq!(again.expect("it is idempotent"), sid);
    let there = rooms.list(&[one.clone(), other.clone()]).await.unwrap();
    assert_eq!(there, HashMap::from([(one.clone(), sid)]), "and {other} is not");
    assert!(rooms.list(&[]).await.unwrap().is_empty(), "no names are not all of them");
    rooms.send(&one, "greenroom.ending", b"{}".to_vec()).await.unwrap();
    rooms.delete(&one).await.unwrap();
    assert!(rooms.list(std::slice::from_ref(&one)).await.unwrap().is_empty());
    rooms.delete(&one).await.expect("what is not there is deleted");
}

#[tokio::test]
async fn what_is_not_there_is_an_answer() {
    let rooms = rooms(Server::shared().await.unwrap());
    assert!(rooms.participants(&room()).await.unwrap().is_empty());
    rooms.delete(&room()).await.unwrap();
    // Only the room's own node knows its dispatches, and of a room that is not there nobody
    // answers: whoever lists them has seen the room.
    let (name, _) = agent("nobody-here");
    let listed = rooms.dispatches(&room(), Some(&name)).await;
    assert!(matches!(listed, Err(LiveKitError::NoNode(_))), "{listed:?}");
    let opened = room();
    rooms.create(&opened, &settings(Dispatch::unserved())).await.unwrap();
    let nobody = rooms.dispatches(&opened, Some(&name)).await.unwrap();
    assert!(matches!(nobody[..], [Asked { owner: DispatchOwner::Unserved, .. }]), "{nobody:?}");
    rooms.delete_dispatch(&opened, "AD_unknown").await.unwrap();
    rooms.delete(&opened).await.unwrap();
}

#[tokio::test]
async fn an_agent_is_asked_for_seen_and_taken_back() {
    let server = Server::shared().await.unwrap();
    let rooms = rooms(server);
    let (name, dispatch) = agent(&format!("rooms-{}", place::random_hex().unwrap()));
    let room = room();
    // Nobody is there to take it: answered OK, and lost.
    rooms.create(&room, &settings(dispatch.clone())).await.unwrap();
    let lost = rooms.dispatches(&room, Some(&name)).await.unwrap();
    assert_eq!((lost.len(), lost[0].jobs.len()), (1, 0), "{lost:?}");
    rooms.delete_dispatch(&room, &lost[0].id).await.unwrap();
    assert!(rooms.dispatches(&room, Some(&name)).await.unwrap().is_empty());

    let _worker = Worker::start(server, name.as_str()).await.unwrap();
    rooms.dispatch(&room, &dispatch).await.unwrap();
    let agent = wait_until("the agent to be there", PATIENCE, async || {
        let all = rooms.participants(&room).await?;
        Ok(all.into_iter().find(|one| one.kind == ParticipantKind::Agent && one.is_active))
    });
    let agent = agent.await.unwrap();
    // LiveKit shows the job some time after the agent itself.
    let taken = wait_until("the job to be shown", PATIENCE, async || {
        let all = rooms.dispatches(&room, Some(&name)).await?;
        Ok(all.iter().any(|one| !one.jobs.is_empty()).then_some(all))
    });
    let taken = taken.await.unwrap();
    assert_eq!(taken.len(), 1);
    let job = &taken[0].jobs[0];
    assert!(job.is_live && taken[0].created_at > 0, "{taken:?}");
    assert_eq!(job.participant_identity, agent.identity);

    rooms.delete_dispatch(&room, &taken[0].id).await.unwrap();
    let gone = wait_until("the agent to be gone", PATIENCE, async || {
        Ok(rooms.participants(&room).await?.is_empty().then_some(()))
    });
    gone.await.unwrap();
    rooms.delete(&room).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_stopped_is_no_empty_one() {
    let mut server = Server::start().await.unwrap();
    let rooms = rooms(&server);
    let (name, _) = agent("nobody-here");
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
