//! The leases of buckets: each bucket has at most one holder.

use std::collections::HashSet;

use diesel::sql_types::SmallInt;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_domain::{Bucket, SessionId};
use greenroom_store::{HeldBuckets, ReplicaId, bucket, connect};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

const ALL: usize = Bucket::COUNT as usize;
const FIRST: ReplicaId = ReplicaId(Uuid::from_u128(1));
const SECOND: ReplicaId = ReplicaId(Uuid::from_u128(2));

async fn join(db: &mut AsyncPgConnection, replica: ReplicaId, limit: usize) -> HeldBuckets {
    assert_eq!(bucket::renew(db, replica).await.unwrap(), None);
    bucket::register(db, replica).await.unwrap();
    bucket::acquire(db, replica, limit).await.unwrap()
}

async fn expire(db: &mut AsyncPgConnection, replica: ReplicaId) {
    let expired =
        "update keeper_replicas set lease_until = now() - interval '1 second' where id = $1";
    sql_query(expired).bind::<diesel::sql_types::Uuid, _>(replica.0).execute(db).await.unwrap();
}

#[tokio::test]
async fn bucket_moves_only_after_a_release_or_an_expired_lease() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let first = join(&mut db, FIRST, ALL).await;
    assert_eq!(first.len(), ALL);
    let renewal = bucket::renew(&mut db, FIRST).await.unwrap().unwrap();
    assert_eq!((&renewal.held, renewal.replicas, renewal.rank), (&first, 1, 0));
    assert!(join(&mut db, SECOND, ALL).await.is_empty(), "all buckets are held");
    let renewal = bucket::renew(&mut db, SECOND).await.unwrap().unwrap();
    assert_eq!((renewal.held.len(), renewal.replicas, renewal.rank), (0, 2, 1));

    let released: Vec<_> = first.keys().take(10).copied().collect();
    bucket::release(&mut db, SECOND, &released).await.unwrap();
    assert!(bucket::acquire(&mut db, SECOND, ALL).await.unwrap().is_empty(), "not its own");
    bucket::release(&mut db, FIRST, &released).await.unwrap();
    let second = bucket::acquire(&mut db, SECOND, 4).await.unwrap();
    assert!(second.len() == 4 && second.keys().all(|bucket| released.contains(bucket)));
    assert!(second.iter().all(|(bucket, epoch)| *epoch == first[bucket] + 1), "the epoch grows");

    expire(&mut db, FIRST).await;
    assert_eq!(bucket::acquire(&mut db, SECOND, ALL).await.unwrap().len(), ALL - 4);
    bucket::unregister(&mut db, SECOND).await.unwrap();
    assert_eq!(join(&mut db, FIRST, ALL).await.len(), ALL, "the lease had expired");
}

#[tokio::test]
async fn process_that_renews_too_late_starts_again() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let before = join(&mut db, FIRST, ALL).await;
    expire(&mut db, FIRST).await;
    let after = join(&mut db, FIRST, ALL).await;
    assert_eq!(after.len(), ALL);
    assert!(after.iter().all(|(bucket, epoch)| *epoch > before[bucket]), "old writes are refused");
}

/// The clock of PostgreSQL was set back after a process took its lease, and the process died.
#[tokio::test]
async fn lease_that_ends_too_late_is_not_valid() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    join(&mut db, FIRST, ALL).await;
    db.batch_execute("update keeper_replicas set lease_until = now() + interval '1 hour'")
        .await
        .unwrap();
    assert_eq!(join(&mut db, SECOND, ALL).await.len(), ALL);
    assert_eq!(bucket::renew(&mut db, SECOND).await.unwrap().unwrap().replicas, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_processes_never_share_a_bucket() {
    let database = Database::fresh().await.unwrap();
    let rounds = (1..=8).map(async |number| {
        let mut db = connect(database.url()).await.unwrap();
        join(&mut db, ReplicaId(Uuid::from_u128(number)), ALL / 4).await
    });
    let held = futures_util::future::join_all(rounds).await;
    let buckets: Vec<_> = held.iter().flat_map(HeldBuckets::keys).collect();
    assert_eq!(buckets.iter().collect::<HashSet<_>>().len(), buckets.len());
    assert!(buckets.len() >= ALL / 4);
}

#[tokio::test]
async fn bucket_edited_by_hand_is_restored() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    join(&mut db, FIRST, ALL).await;
    db.batch_execute(
        "delete from keeper_buckets where bucket < 3;
         update keeper_buckets set replica = gen_random_uuid() where bucket between 3 and 4;
         update keeper_buckets set epoch = 4711 where bucket = 5",
    )
    .await
    .unwrap();
    let held = bucket::renew(&mut db, FIRST).await.unwrap().unwrap().held;
    assert_eq!(held.len(), ALL - 5);
    assert_eq!(held[&Bucket::new(5).unwrap()], 4711);
    assert_eq!(bucket::repair(&mut db).await.unwrap(), 3);
    assert_eq!(bucket::repair(&mut db).await.unwrap(), 0);
    let acquired = bucket::acquire(&mut db, FIRST, ALL).await.unwrap();
    assert_eq!(acquired.len(), 5);
    let restored = acquired[&Bucket::new(0).unwrap()];
    assert!(restored > 1_000_000, "an epoch of the deleted row is not valid: {restored}");
}

#[tokio::test]
async fn sql_finds_the_bucket_of_a_session_as_the_domain_does() {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = SmallInt)]
        bucket: i16,
    }
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let mut numbers = HashSet::new();
    for number in (0..2_000_u128).chain([u128::MAX]) {
        let id = SessionId(Uuid::from_u128(number.wrapping_mul(0x0123_4567_89ab_cdef_0123_4567)));
        let found: Found = sql_query("select session_bucket($1) as bucket")
            .bind::<diesel::sql_types::Uuid, _>(id)
            .get_result(&mut db)
            .await
            .unwrap();
        assert_eq!(Bucket::new(found.bucket), Some(id.bucket()), "{id}");
        numbers.insert(found.bucket);
    }
    assert!(numbers.len() > 500);
    assert_eq!((Bucket::new(-1), Bucket::new(1_024)), (None, None));
}
