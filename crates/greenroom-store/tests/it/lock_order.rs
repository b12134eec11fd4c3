//! Statements that write many sessions at once, concurrently: none of them ends in a deadlock.

use std::time::Duration;

use diesel::sql_query;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_store::idempotency::purge_expired_keys;
use greenroom_store::unreadable::postpone_unreadable;
use greenroom_store::{
    HeldBuckets, NewSession, OpenedRoom, ReplicaId, SessionSnapshot, bucket, connect,
    record_rooms_opened,
};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

use crate::idempotency_keys::keyed;
use crate::session::template;
use crate::snapshots::{hold_all, read_due};

const SESSIONS: u32 = 200;
const ROUNDS: usize = 40;

/// Opens a connection that updates rows in the order of the statement's arguments, if the statement
/// itself does not lock them in another order. PostgreSQL prefers such plans for large tables.
async fn open(database: &Database) -> AsyncPgConnection {
    let mut db = connect(database.url()).await.unwrap();
    let plans = "set enable_hashjoin = off; set enable_mergejoin = off; set enable_seqscan = off";
    db.batch_execute(plans).await.unwrap();
    db
}

async fn claim(db: &mut AsyncPgConnection, held: &HeldBuckets) -> greenroom_store::SnapshotBatch {
    sql_query("update sessions set next_check_at = now()").execute(db).await.unwrap();
    read_due(db, held).await
}

/// Inserts sessions whose keys are in the opposite order of their ids.
async fn insert_sessions(db: &mut AsyncPgConnection) {
    template(db, None).await;
    for number in 1..=SESSIONS {
        let key = u8::try_from(SESSIONS - number).unwrap();
        let new: NewSession = keyed(number, key);
        new.insert(db, None).await.unwrap().unwrap();
    }
    db.batch_execute("alter table sessions drop constraint sessions_lifecycle").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_batches_do_not_deadlock() {
    let database = Database::fresh().await.unwrap();
    let (mut one, mut other) = (open(&database).await, open(&database).await);
    let (mut third, mut fourth) = (open(&database).await, open(&database).await);
    insert_sessions(&mut one).await;
    let held = hold_all(&mut one).await;
    let batch = claim(&mut one, &held).await;
    let (next, claims) = (Some(batch.at), batch.sessions);
    let mut rescheduled: Vec<_> = claims.into_iter().map(|claim| (claim, next)).collect();
    rescheduled.sort_by_key(|(claim, _)| claim.id);
    sql_query("update sessions set status = 'dreaming'").execute(&mut one).await.unwrap();
    let mut unreadable = claim(&mut one, &held).await.unreadable;
    unreadable.sort_by_key(|session| std::cmp::Reverse(session.id));
    assert_eq!((rescheduled.len(), unreadable.len()), (200, 200));
    sql_query("create table keys as select id, idempotency_key from sessions")
        .execute(&mut one)
        .await
        .unwrap();
    let reset = "update sessions set status = 'pending', revision = 1, idempotency_key = keys.idempotency_key
         from keys where keys.id = sessions.id";
    for (claim, _) in &mut rescheduled {
        claim.revision = 1;
    }
    let replica = ReplicaId(Uuid::nil());
    let opened = |claim: &SessionSnapshot| {
        let holder = Some(replica);
        OpenedRoom { key: claim.key(), sid: "RM_1".to_owned(), holder }
    };
    let opened: Vec<_> = rescheduled.iter().rev().map(|(claim, _)| opened(claim)).collect();
    let opened: Vec<_> = opened.iter().collect();
    for round in 0..ROUNDS {
        bucket::renew(&mut one, replica).await.unwrap().unwrap();
        sql_query(reset).execute(&mut one).await.unwrap();
        let unreadable = &unreadable;
        let next_checks: Vec<_> = rescheduled.iter().map(|(claim, next)| (claim, *next)).collect();
        let forward = async { SessionSnapshot::reschedule(&mut one, &next_checks).await };
        let backward = async { postpone_unreadable(&mut other, unreadable).await };
        let keys = async { purge_expired_keys(&mut third, None).await.map(drop) };
        let rooms = async { record_rooms_opened(&mut fourth, &opened, Duration::ZERO).await };
        let (forward, backward, keys, rooms) = tokio::join!(forward, backward, keys, rooms);
        forward.unwrap_or_else(|error| panic!("reschedule, round {round}: {error:?}"));
        backward.unwrap_or_else(|error| panic!("postpone, round {round}: {error:?}"));
        rooms.unwrap_or_else(|error| panic!("opened rooms, round {round}: {error:?}"));
        keys.unwrap_or_else(|error| panic!("purge, round {round}: {error:?}"));
    }
}
