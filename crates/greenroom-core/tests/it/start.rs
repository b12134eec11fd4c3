//! The state of a session after a start, depending on LiveKit's response.

use std::sync::Arc;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{
    AgentName, AgentStatus, EndReason, RoomCreation, SessionStatus, UserId,
};
use greenroom_core::{
    Caller, Error, LiveKitError, MemoryRooms, PageRequest, SessionFilter, StartRequest,
};
use greenroom_testkit::pg::Database;

use crate::{organization, service, template};

#[tokio::test]
async fn start_opens_one_room_with_settings_of_template() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let mut settings = template("T");
    settings.agent_name = Some(AgentName::try_from("greeter".to_owned()).unwrap());
    let id = greenroom.create_template(&caller, settings).await.unwrap().id;
    let user = UserId::try_from("ann".to_owned()).unwrap();
    let mut request = StartRequest::new(id);
    request.user_id = Some(user);
    let started = greenroom.start(&caller, request).await.unwrap();

    assert_eq!(rooms.count(), 1);
    let room = rooms.get(&started.session.room_name).unwrap();
    assert_eq!((room.dispatch.agent_name(), room.departure_timeout), ("greeter", 60));
    let session = greenroom.session(&caller, started.session.id).await.unwrap().unwrap();
    assert_eq!(
        (session.status, session.agent_status),
        (SessionStatus::Pending, AgentStatus::Dispatched)
    );
    assert!(!format!("{started:?}").contains(&started.access_token), "Debug shows the token");
}

#[tokio::test]
async fn session_fails_if_livekit_is_down() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    rooms.set_down(true);
    let refused = greenroom.start(&caller, StartRequest::new(id)).await.unwrap_err();
    assert!(matches!(refused, Error::LiveKit(LiveKitError::Unavailable(_))), "{refused:?}");
    let sessions = greenroom
        .sessions(&caller, SessionFilter::default(), PageRequest::default())
        .await
        .unwrap();
    let found: Vec<_> =
        sessions.items.iter().map(|session| (session.status, session.end_reason)).collect();
    assert_eq!(found, [(SessionStatus::Failed, Some(EndReason::LiveKitError))]);
}

#[tokio::test]
async fn session_that_ends_before_its_room_opens_is_not_returned() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    // The keeper fails a session after one minute, just before a replay opens the session's room.
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(
        "create function give_up() returns trigger language plpgsql as
           'begin update sessions set status = ''failed'', end_reason = ''livekit_error'', ended_at = now()
                  where id = new.id; return null; end';
         create trigger give_up after insert on sessions for each row execute function give_up()",
    )
    .await
    .unwrap();
    let refused = greenroom.start(&caller, StartRequest::new(id)).await.unwrap_err();
    let Error::SessionOver(id) = refused else { panic!("{refused:?}") };
    // The keeper must delete the room, and the timeline shows it.
    let timeline = greenroom.timeline(&caller, id).await.unwrap().unwrap();
    let events: Vec<_> = timeline.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["created", "room_created"]);
    db.batch_execute(&format!(
        "do $$ begin
           assert (select next_check_at <= now() from sessions where id = '{id}'), 'not due';
         end $$"
    ))
    .await
    .unwrap();
}

#[tokio::test]
async fn on_join_start_succeeds_without_livekit() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    rooms.set_down(true);
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let mut settings = template("T");
    settings.room_creation = RoomCreation::OnJoin;
    let id = greenroom.create_template(&caller, settings).await.unwrap().id;
    let started = greenroom.start(&caller, StartRequest::new(id)).await.unwrap();
    assert_eq!(started.session.status, SessionStatus::Pending);
    assert!(rooms.get(&started.session.room_name).is_none());
}

#[tokio::test]
async fn futures_are_send() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let id = send(greenroom.create_template(&caller, template("T"))).await.unwrap().id;
    let started = send(greenroom.start(&caller, StartRequest::new(id))).await.unwrap();
    assert!(send(greenroom.session(&caller, started.session.id)).await.unwrap().is_some());
}
