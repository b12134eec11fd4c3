//! Room names: retries after a collision, and distinct names across processes.

use std::sync::Arc;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::{Caller, Error, MemoryRooms, StartRequest, StoreError};
use greenroom_testkit::pg::Database;

use crate::{organization, service, template};

/// Gives the next three sessions that are inserted the name of an existing room. The sequence
/// counts the attempts, because a rollback does not reset it.
const COLLIDE_THREE_TIMES: &str = "
    create sequence collisions;
    create function collide() returns trigger language plpgsql as $$
    begin
      if nextval('collisions') <= 3 then
        select room_name into new.room_name from sessions limit 1;
      end if;
      return new;
    end $$;
    create trigger collide before insert on sessions for each row execute function collide()";

#[tokio::test]
async fn room_name_collision_is_retried_three_times() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let template = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    let start = async || greenroom.start(&caller, StartRequest::new(template)).await;
    let first = start().await.unwrap().session.room_name;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(COLLIDE_THREE_TIMES).await.unwrap();
    assert_ne!(start().await.unwrap().session.room_name, first, "the fourth name is free");

    // The sequence now allows four collisions: 0 to 3.
    db.batch_execute("alter sequence collisions minvalue -9 restart with 0").await.unwrap();
    let refused = start().await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Conflict(_))), "{refused:?}");
}

#[tokio::test]
async fn concurrent_processes_create_distinct_names() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let processes =
        [service(&database, &rooms).build().unwrap(), service(&database, &rooms).build().unwrap()];
    let caller = Caller::backend(organization());
    let template = processes[0].create_template(&caller, template("T")).await.unwrap().id;
    let starts = (0..400).map(|n| {
        let (process, caller) = (processes[n % 2].clone(), caller.clone());
        tokio::spawn(async move { process.start(&caller, StartRequest::new(template)).await })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    assert_eq!(rooms.count(), 400);
}
