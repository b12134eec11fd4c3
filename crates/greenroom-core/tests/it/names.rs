//! Collisions of room names.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use greenroom_core::domain::SuffixSequence;
use greenroom_core::{Caller, Clock, Error, Greenroom, MemoryRooms, StartRequest, StoreError};
use greenroom_testkit::pg::Database;

use crate::{organization, service, template};

/// Creates a service with a fixed clock and a fixed sequence, so that all such services generate
/// the same room names.
fn service_with_fixed_names(database: &Database) -> Greenroom {
    let at: DateTime<Utc> = "2026-11-22T14:30:22Z".parse().unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    service(database, &rooms)
        .clock(Clock::Fixed(at))
        .room_names(SuffixSequence::new(0, 1))
        .build()
        .unwrap()
}

#[tokio::test]
async fn room_name_collision_is_retried_three_times() {
    let database = Database::fresh().await.unwrap();
    let first = service_with_fixed_names(&database);
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
    assert_eq!(
        start(&service_with_fixed_names(&database)).await.unwrap(),
        "session_20261122_143022_000003"
    );
    // The names 0 to 3 are taken, and a start tries no others.
    let refused = start(&service_with_fixed_names(&database)).await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Conflict(_))), "{refused:?}");
}

#[tokio::test]
async fn concurrent_processes_create_distinct_names() {
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
