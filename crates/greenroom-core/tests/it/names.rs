//! RoomNameGenerator of rooms that collide.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use greenroom_core::domain::SuffixSequence;
use greenroom_core::{Caller, Clock, Error, Greenroom, MemoryRooms, StartRequest, StoreError};
use greenroom_testkit::pg::Database;

use crate::{organization, service, template};

/// A process whose names are those of every other one of these: the same second, the same walk.
fn twin(database: &Database) -> Greenroom {
    let at: DateTime<Utc> = "2026-11-22T14:30:22Z".parse().unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    service(database, &rooms)
        .clock(Clock::Fixed(at))
        .room_names(SuffixSequence::new(0, 1))
        .build()
        .unwrap()
}

#[tokio::test]
async fn up_to_three_new_names_are_tried_on_a_collision() {
    let database = Database::fresh().await.unwrap();
    let first = twin(&database);
    let organization = organization();
    let template = first.create_template(organization, template("T")).await.unwrap().id;
    let start = async |greenroom: &Greenroom| {
        let started =
            greenroom.start(&Caller::backend(organization), StartRequest::new(template)).await?;
        Ok::<_, Error>(started.session.room_name.to_string())
    };
    for suffix in 0..3 {
        assert_eq!(start(&first).await.unwrap(), format!("session_20261122_143022_{suffix:06x}"));
    }
    assert_eq!(start(&twin(&database)).await.unwrap(), "session_20261122_143022_000003");
    // 0 to 3 are taken by now, which are all that another one tries.
    let refused = start(&twin(&database)).await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Conflict(_))), "{refused:?}");
}

#[tokio::test]
async fn two_processes_at_once_share_no_name() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let processes =
        [service(&database, &rooms).build().unwrap(), service(&database, &rooms).build().unwrap()];
    let organization = organization();
    let template = processes[0].create_template(organization, template("T")).await.unwrap().id;
    let starts = (0..400).map(|n| {
        let process = processes[n % 2].clone();
        tokio::spawn(async move {
            process.start(&Caller::backend(organization), StartRequest::new(template)).await
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    assert_eq!(rooms.count(), 400);
}
