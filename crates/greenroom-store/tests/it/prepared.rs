//! Frequent statements that PostgreSQL prepares once per connection and stops planning.

use std::time::Duration;

use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Action, Event, TimelineEvent};
use greenroom_store::{
    HeldBuckets, KeyClaim, OpenedRoom, PageStart, SessionFilter, connect, due, record_rooms_opened,
    session,
};
use greenroom_testkit::pg::Database;

use crate::idempotency_keys::keyed;
use crate::session::{ORGANIZATION, find, template};
use crate::snapshots::{decision, hold_all, read_snapshots};

/// PostgreSQL plans the first five executions of a prepared statement for their values.
const PLANNED: i64 = 5;
const EXECUTIONS: i64 = 8;

#[derive(QueryableByName, Debug, Clone, PartialEq)]
struct Plans {
    #[diesel(sql_type = BigInt)]
    custom_plans: i64,
    #[diesel(sql_type = BigInt)]
    generic_plans: i64,
}

/// The plans of the prepared statements of this connection whose text matches.
async fn plans(db: &mut AsyncPgConnection, pattern: &str) -> Vec<Plans> {
    let plans = "select custom_plans, generic_plans from pg_prepared_statements
         where statement like $1 and statement not like '%pg_prepared_statements%'";
    sql_query(plans).bind::<Text, _>(pattern).load(db).await.unwrap()
}

/// Commits a decision with these events for the session.
async fn commit(db: &mut AsyncPgConnection, held: &HeldBuckets, events: &[Event]) {
    sql_query("update sessions set next_check_at = now()").execute(db).await.unwrap();
    let claim = read_snapshots(db, held).await.remove(0);
    let decision = decision(&claim, events, &[Action::Dispatch]);
    assert!(claim.commit(db, &decision).await.unwrap());
}

#[tokio::test]
async fn frequent_writes_are_prepared_once_and_planned_few_times() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let new = keyed(1, 1);
    let key: KeyClaim = *new.key.claim().unwrap();
    new.insert(&mut db, None).await.unwrap().unwrap();
    let held = hold_all(&mut db).await;
    sql_query("update sessions set next_check_at = now()").execute(&mut db).await.unwrap();
    let session = read_snapshots(&mut db, &held).await.remove(0).key();
    for number in 0..EXECUTIONS {
        let joined = Event { event: TimelineEvent::AgentJoined, sid: Some(format!("PA_{number}")) };
        let left = Event { event: TimelineEvent::AgentLeft, sid: None };
        commit(&mut db, &held, &[]).await;
        let events = if number % 2 == 0 { vec![joined] } else { vec![left.clone(), left] };
        commit(&mut db, &held, &events).await;
        due::make_due(&mut db, session).await.unwrap();
        let room = OpenedRoom { key: session, sid: format!("RM_{number}"), holder: None };
        let rooms = vec![&room; 1 + usize::try_from(number).unwrap()];
        record_rooms_opened(&mut db, &rooms, Duration::from_secs(1)).await.unwrap();
        key.release_if_expired(&mut db, ORGANIZATION).await.unwrap();
        key.release(&mut db, ORGANIZATION).await.unwrap();
    }
    for statement in [
        "with written as (update sessions %",
        "update sessions set status = %",
        "with opened as (%",
        "update sessions set next_check_at = now()%where next_check_at is not null%",
        "update sessions set idempotency_key %(sessions.created_at > %",
        "update sessions set idempotency_key %not sessions.created_at > %",
    ] {
        let expected = Plans { custom_plans: PLANNED, generic_plans: EXECUTIONS - PLANNED };
        assert_eq!(plans(&mut db, statement).await, [expected], "{statement}");
    }
}

#[tokio::test]
async fn frequent_reads_are_prepared_once_and_planned_few_times() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let id = keyed(1, 1).insert(&mut db, None).await.unwrap().unwrap().setup.session.id;
    for _ in 0..EXECUTIONS {
        find(&mut db, id).await.unwrap();
        for start in [PageStart::Offset(0), PageStart::After(id)] {
            session::list(&mut db, ORGANIZATION, &SessionFilter::default(), start, 51)
                .await
                .unwrap();
        }
    }
    for (statement, count) in [("select \"sessions\".%from unnest(%", 1), ("select * from (%", 2)] {
        let expected = Plans { custom_plans: PLANNED, generic_plans: EXECUTIONS - PLANNED };
        assert_eq!(plans(&mut db, statement).await, vec![expected; count], "{statement}");
    }
}
