//! Starts with a key, explicit or implicit: which session a repeated start gets, and when it gets
//! none.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{IdempotencyKey, SessionStatus, SessionTemplateId, UserId};
use greenroom_core::{
    Caller, Error, Greenroom, LiveKitError, MemoryRooms, StartRequest, StartedSession,
};
use greenroom_testkit::pg::Database;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::gated_rooms::{GatedCall, GatedRooms};
use crate::{config, on_join_template, organization, service, template};

const TIMEOUT: Duration = Duration::from_secs(10);

fn keyed(template: SessionTemplateId, key: &str) -> StartRequest {
    let mut request = StartRequest::new(template);
    request.idempotency_key = Some(IdempotencyKey::try_from(key.to_owned()).unwrap());
    request
}

fn ann(caller: &Caller) -> Caller {
    Caller::end_user(caller.organization_id, UserId::try_from("ann".to_owned()).unwrap())
}

/// A service with an `on_join` template.
struct OnJoin {
    database: Database,
    greenroom: Greenroom,
    caller: Caller,
    template: SessionTemplateId,
    /// Direct access to the database.
    db: AsyncPgConnection,
}

impl OnJoin {
    async fn new() -> Self {
        let database = Database::fresh().await.unwrap();
        let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
        let caller = Caller::backend(organization());
        let template = on_join_template(&greenroom, &caller).await;
        let db = AsyncPgConnection::establish(database.url()).await.unwrap();
        Self { database, greenroom, caller, template, db }
    }
}

/// LiveKit is down, so the keeper cannot expire a session after its deadline.
#[tokio::test]
async fn session_out_of_time_issues_no_token() {
    let OnJoin { database: _database, greenroom, caller, template, mut db } = OnJoin::new().await;
    let active = "status = 'active', started_at = now(), user_joined_at = now()";
    for (key, state, has_time) in [
        ("1", "join_by = now() + interval '1 minute'".to_owned(), true),
        ("2", "join_by = now()".to_owned(), false),
        ("3", format!("{active}, join_by = now(), end_by = now() + interval '1 minute'"), true),
        ("4", format!("{active}, end_by = now()"), false),
    ] {
        let first = greenroom.start(&caller, keyed(template, key)).await.unwrap().session.id;
        let state = format!("update sessions set {state} where id = '{first}'");
        db.batch_execute(&state).await.unwrap();
        let again = greenroom.start(&caller, keyed(template, key)).await;
        let refreshed = greenroom.refresh_token(&caller, first).await;
        if has_time {
            assert_eq!(again.unwrap().session.id, first, "{state}");
            assert_eq!(refreshed.unwrap().unwrap().session.id, first, "{state}");
        } else {
            for refused in [again.err(), refreshed.err()] {
                let is_over = matches!(&refused, Some(Error::SessionOver(id)) if *id == first);
                assert!(is_over, "{state}: {refused:?}");
            }
        }
    }
}

#[tokio::test]
async fn fingerprint_of_other_version_is_not_compared() {
    let OnJoin { database: _database, greenroom, caller, template, mut db } = OnJoin::new().await;
    let first = greenroom.start(&caller, keyed(template, "k")).await.unwrap().session.id;
    let mut other = keyed(template, "k");
    other.user_id = Some(UserId::try_from("ann".to_owned()).unwrap());
    let refused = greenroom.start(&caller, other.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::IdempotencyKeyReused), "{refused:?}");

    // A version other than 1 precedes its digest.
    let versioned = "update sessions set idempotency_fingerprint = '\\x02' || sha256('other')";
    db.batch_execute(versioned).await.unwrap();
    for request in [keyed(template, "k"), other] {
        let again = greenroom.start(&caller, request).await.unwrap();
        assert_eq!((again.session.id, again.replayed), (first, true));
    }
}

/// An end user with two tabs, each of which is served by another replica, and a LiveKit that the test
/// controls.
struct Tabs {
    database: Database,
    replicas: [Greenroom; 2],
    calls: UnboundedReceiver<GatedCall>,
    user: Caller,
    template: SessionTemplateId,
}

type Tab = JoinHandle<Result<StartedSession, Error>>;

impl Tabs {
    async fn new() -> Self {
        let database = Database::fresh().await.unwrap();
        let (rooms, calls) = GatedRooms::new();
        let replica =
            || Greenroom::builder(config(&database)).rooms(rooms.clone()).build().unwrap();
        let replicas = [replica(), replica()];
        let backend = Caller::backend(organization());
        let template = replicas[0].create_template(&backend, template("T")).await.unwrap().id;
        Self { database, replicas, calls, user: ann(&backend), template }
    }

    /// Starts a session in a new tab, until LiveKit is asked to open its room.
    async fn open_tab(&mut self, replica: usize) -> (Tab, GatedCall) {
        let (greenroom, user) = (self.replicas[replica].clone(), self.user.clone());
        let request = StartRequest::new(self.template);
        let tab = tokio::spawn(async move { greenroom.start(&user, request).await });
        (tab, self.next_call().await)
    }

    async fn next_call(&mut self) -> GatedCall {
        timeout(TIMEOUT, self.calls.recv()).await.unwrap().unwrap()
    }
}

#[track_caller]
fn assert_unavailable(result: Result<StartedSession, Error>) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::LiveKit(LiveKitError::Unavailable(_))), "{error:?}");
}

#[tokio::test]
async fn failed_start_of_one_tab_does_not_end_session_of_other_tab() {
    let mut tabs = Tabs::new().await;
    let (first, first_call) = tabs.open_tab(0).await;
    let (second, second_call) = tabs.open_tab(1).await;
    assert_eq!(first_call.room, second_call.room);
    drop(first_call);
    assert_unavailable(first.await.unwrap());
    second_call.open();
    let second = second.await.unwrap().unwrap();
    let again = tabs.replicas[0].start(&tabs.user, StartRequest::new(tabs.template)).await.unwrap();
    assert_eq!(again.session.id, second.session.id);
}

#[tokio::test]
async fn tabs_get_same_session_after_livekit_was_down_for_both() {
    let mut tabs = Tabs::new().await;
    let (first, first_call) = tabs.open_tab(0).await;
    let (second, second_call) = tabs.open_tab(1).await;
    drop((first_call, second_call));
    assert_unavailable(first.await.unwrap());
    assert_unavailable(second.await.unwrap());
    let (first, first_call) = tabs.open_tab(0).await;
    let (second, second_call) = tabs.open_tab(1).await;
    first_call.open();
    second_call.open();
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!(first.session.id, second.session.id);
}

#[tokio::test]
async fn tabs_of_one_replica_share_one_call() {
    let mut tabs = Tabs::new().await;
    let (first, call) = tabs.open_tab(0).await;
    let (greenroom, user) = (tabs.replicas[0].clone(), tabs.user.clone());
    let request = StartRequest::new(tabs.template);
    let second = tokio::spawn(async move { greenroom.start(&user, request).await });
    // The second start runs until it waits.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    call.open();
    let first = first.await.unwrap().unwrap();
    let second = timeout(TIMEOUT, second).await.unwrap().unwrap().unwrap();
    assert_eq!((second.session.id, second.replayed), (first.session.id, true));
    assert!(tabs.calls.is_empty());
}

/// The keeper fails the session after one minute, while LiveKit opens the room for a tab.
#[tokio::test]
async fn tab_starts_another_session_if_its_session_ends_before_room_opens() {
    let mut tabs = Tabs::new().await;
    let (tab, call) = tabs.open_tab(0).await;
    let mut db = AsyncPgConnection::establish(tabs.database.url()).await.unwrap();
    let fail =
        "update sessions set status = 'failed', end_reason = 'livekit_error', ended_at = now()";
    db.batch_execute(fail).await.unwrap();
    let failed_room = call.room.clone();
    call.open();
    let call = tabs.next_call().await;
    assert_ne!(call.room, failed_room);
    call.open();
    let started = tab.await.unwrap().unwrap();
    assert_eq!(started.session.status, SessionStatus::Pending);
    assert_ne!(started.session.room_name, failed_room);
}
