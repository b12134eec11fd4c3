//! The keeper at work, with rooms in memory: what it does when there is little to work with.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{RoomCreation, SessionStatus};
use greenroom_core::{
    Caller, Config, Greenroom, MemoryRooms, PageRequest, SessionFilter, StartRequest,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use tokio::sync::Notify;

use crate::{config, organization, service, template};

const PATIENCE: Duration = Duration::from_secs(40);

/// More than the connections that are the keeper's share.
const EXPIRING: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_take_a_second_do_not_stop_the_keeper() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let organization = organization();
    let caller = Caller::backend(organization);
    let mut resting = template("Resting");
    resting.room_creation = RoomCreation::OnJoin;
    let resting = greenroom.create_template(organization, resting).await.unwrap().id;
    let expiring = greenroom.create_template(organization, template("Expiring")).await.unwrap().id;
    for _ in 0..EXPIRING {
        greenroom.start(&caller, StartRequest::new(expiring)).await.unwrap();
    }
    let at_rest = greenroom.start(&caller, StartRequest::new(resting)).await.unwrap().session;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(&format!(
        "create function stall() returns trigger language plpgsql as
           'begin perform pg_sleep(1); return new; end';
         create trigger stall before update on sessions for each row
           when (new.status = 'expired' and old.status = 'pending') execute function stall();
         update sessions set next_check_at = now();
         update sessions set join_by = now() where id <> '{}'",
        at_rest.id
    ))
    .await
    .unwrap();

    let enough = Notify::new();
    let judge = async {
        let filter = SessionFilter { status: vec![SessionStatus::Expired], ..Default::default() };
        let all = wait_until("all to expire", PATIENCE, async || {
            let page = PageRequest { limit: 100, ..PageRequest::default() };
            let expired = greenroom.sessions(&caller, filter.clone(), page).await?.items.len();
            Ok((expired == EXPIRING).then_some(()))
        });
        all.await.unwrap();
        enough.notify_one();
    };
    let keeper_permits =
        tokio::time::timeout(PATIENCE + PATIENCE, greenroom.run_keeper(enough.notified()));
    let ((), kept) = tokio::join!(judge, keeper_permits);
    kept.expect("it stops when it is told to");
    assert_eq!(rooms.count(), 0, "their rooms are gone");
}

#[tokio::test]
async fn calls_that_run_low_are_left_to_deadlines() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let config = Config { livekit_calls_per_minute: Some(4), ..config(&database) };
    let greenroom = Greenroom::builder(config).rooms(rooms.clone()).build().unwrap();
    let organization = organization();
    let caller = Caller::backend(organization);
    let mut resting = template("Resting");
    resting.room_creation = RoomCreation::OnJoin;
    let resting = greenroom.create_template(organization, resting).await.unwrap().id;
    let at_rest = greenroom.start(&caller, StartRequest::new(resting)).await.unwrap().session;
    let expiring = greenroom.create_template(organization, template("Expiring")).await.unwrap().id;
    // Each opens a room: the minute's calls are spent.
    for _ in 0..4 {
        greenroom.start(&caller, StartRequest::new(expiring)).await.unwrap();
    }
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(&format!(
        "update sessions set next_check_at = now();
         update sessions set join_by = now() where id <> '{}'",
        at_rest.id
    ))
    .await
    .unwrap();
    let met = async {
        let gone = async || Ok((rooms.count() == 0).then_some(()));
        wait_until("all to expire and their rooms to go", PATIENCE, gone).await.unwrap();
    };
    greenroom.run_keeper(met).await;
    // What is at rest waits for calls to be left.
    db.batch_execute(&format!(
        "do $$ begin
           assert (select revision from sessions where id = '{0}') = 0, 'it was looked at';
           assert (select min(revision) from sessions where id <> '{0}') > 0, 'the control';
         end $$",
        at_rest.id
    ))
    .await
    .unwrap();
}
