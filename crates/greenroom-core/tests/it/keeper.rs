//! The keeper with scarce resources: slow writes, and few calls to LiveKit. With rooms in memory.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{CallsPerMinute, PageLimit, SessionStatus};
use greenroom_core::{Caller, Greenroom, MemoryRooms, PageRequest, SessionFilter, StartRequest};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use tokio::sync::Notify;

use crate::{config, on_join_template, organization, service, template};

const TIMEOUT: Duration = Duration::from_secs(40);

/// More sessions than the keeper has connections.
const EXPIRING: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_writes_do_not_stall_keeper() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let idle = on_join_template(&greenroom, &caller).await;
    let expiring = greenroom.create_template(&caller, template("Expiring")).await.unwrap().id;
    for _ in 0..EXPIRING {
        greenroom.start(&caller, StartRequest::new(expiring)).await.unwrap();
    }
    let idle = greenroom.start(&caller, StartRequest::new(idle)).await.unwrap().session;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(&format!(
        "create function stall() returns trigger language plpgsql as
           'begin perform pg_sleep(1); return new; end';
         create trigger stall before update on sessions for each row
           when (new.status = 'expired' and old.status = 'pending') execute function stall();
         update sessions set next_check_at = now();
         update sessions set join_by = now() where id <> '{}'",
        idle.id
    ))
    .await
    .unwrap();

    let stop = Notify::new();
    let check = async {
        let mut filter = SessionFilter::default();
        filter.status = vec![SessionStatus::Expired];
        let all_expired = wait_until("all sessions to expire", TIMEOUT, async || {
            let page = PageRequest::first(PageLimit::constant::<100>());
            let expired = greenroom.sessions(&caller, filter.clone(), page).await?.items.len();
            Ok((expired == EXPIRING).then_some(()))
        });
        all_expired.await.unwrap();
        stop.notify_one();
    };
    let keeper = tokio::time::timeout(TIMEOUT + TIMEOUT, greenroom.run_keeper(stop.notified()));
    let ((), stopped) = tokio::join!(check, keeper);
    stopped.expect("the keeper stops on request");
    assert_eq!(rooms.count(), 0, "the rooms of the expired sessions are deleted");
}

#[tokio::test]
async fn low_call_budget_still_enforces_deadlines() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let mut config = config(&database);
    config.livekit_calls_per_minute = Some(CallsPerMinute::constant::<4>());
    let greenroom = Greenroom::builder(config).rooms(rooms.clone()).build().unwrap();
    let caller = Caller::backend(organization());
    let idle = on_join_template(&greenroom, &caller).await;
    let idle = greenroom.start(&caller, StartRequest::new(idle)).await.unwrap().session;
    let expiring = greenroom.create_template(&caller, template("Expiring")).await.unwrap().id;
    // Each start opens a room, so the starts use up the calls of the minute.
    for _ in 0..4 {
        greenroom.start(&caller, StartRequest::new(expiring)).await.unwrap();
    }
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(&format!(
        "update sessions set next_check_at = now();
         update sessions set join_by = now() where id <> '{}'",
        idle.id
    ))
    .await
    .unwrap();
    let all_expired = async {
        let no_rooms = async || Ok((rooms.count() == 0).then_some(()));
        wait_until("the rooms of all expired sessions to be deleted", TIMEOUT, no_rooms)
            .await
            .unwrap();
    };
    greenroom.run_keeper(all_expired).await;
    let idle = idle.room_name.valid().unwrap();
    assert_eq!(rooms.lists(idle), 0, "the idle session waits until calls are left");
}
