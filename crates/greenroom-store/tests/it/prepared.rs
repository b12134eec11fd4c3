//! Frequent writes that PostgreSQL prepares once per connection and stops planning.

use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Action, Event, TimelineEvent};
use greenroom_store::{HeldBuckets, connect};
use greenroom_testkit::pg::Database;

use crate::session::{session, template};
use crate::snapshots::{decision, hold_all, read_snapshots};

/// PostgreSQL plans the first five executions of a prepared statement for their values.
const PLANNED: i64 = 5;
const EXECUTIONS: i64 = 8;

#[derive(QueryableByName, Debug, PartialEq)]
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
    session(1).insert(&mut db, None).await.unwrap().unwrap();
    let held = hold_all(&mut db).await;
    for number in 0..EXECUTIONS {
        let joined = Event { event: TimelineEvent::AgentJoined, sid: Some(format!("PA_{number}")) };
        let left = Event { event: TimelineEvent::AgentLeft, sid: None };
        commit(&mut db, &held, &[]).await;
        let events = if number % 2 == 0 { vec![joined] } else { vec![left.clone(), left] };
        commit(&mut db, &held, &events).await;
    }
    for statement in ["with written as (update sessions %", "update sessions set status = %"] {
        let expected = Plans { custom_plans: PLANNED, generic_plans: EXECUTIONS - PLANNED };
        assert_eq!(plans(&mut db, statement).await, [expected], "{statement}");
    }
}
