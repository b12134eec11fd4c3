//! The buckets of sessions, and the lease of the process that holds them.
//!
//! A bucket changes its owner rarely, and a process renews one row for all its buckets. A write of
//! the keeper names the epoch of the bucket: after a move, the writes of the previous owner are
//! refused.

use std::collections::HashMap;

use chrono::TimeDelta;
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{self, BigInt, Nullable, SmallInt, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::Bucket;
use uuid::Uuid;

use crate::StoreError;
use crate::schema::{keeper_buckets, keeper_replicas};
use crate::sql::interval;

/// Time after which a process that does not renew its lease loses its buckets.
pub const BUCKET_LEASE: TimeDelta = TimeDelta::seconds(6);

/// Time after the expiry of its lease at which a replica is deleted.
const REPLICA_RETENTION: TimeDelta = TimeDelta::hours(1);

/// One run of a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaId(pub Uuid);

/// How often a bucket has moved. Each move adds one.
pub type Epoch = i64;

/// Buckets that a process holds, each with its epoch.
pub type HeldBuckets = HashMap<Bucket, Epoch>;

/// A row of `keeper_buckets`.
#[derive(QueryableByName)]
#[diesel(table_name = keeper_buckets)]
struct BucketRow {
    bucket: i16,
    epoch: Epoch,
}

/// SQL condition: the lease of the replica is valid. A lease that ends too late was written before
/// the clock of PostgreSQL was set back, and would block its buckets until then.
fn valid_lease() -> String {
    let lease = interval(BUCKET_LEASE);
    format!("lease_until > now() and lease_until <= now() + 2 * {lease}")
}

/// SQL relation: the buckets that a process with a valid lease holds. The upper bound of
/// [`valid_lease`] is not needed: the replica that acquires the bucket changes its epoch.
pub(crate) const HELD_BUCKETS: &str = "keeper_buckets join keeper_replicas
    on keeper_replicas.id = keeper_buckets.replica and keeper_replicas.lease_until > now()";

/// What a process holds, and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewal {
    /// The buckets that the process holds.
    pub held: HeldBuckets,
    /// The number of processes with a valid lease, including this one.
    pub replicas: usize,
    /// The position of this process among them, from 0.
    pub rank: usize,
}

/// A row of the renewal: a held bucket, or none.
#[derive(QueryableByName)]
struct RenewalRow {
    #[diesel(sql_type = BigInt)]
    replicas: i64,
    #[diesel(sql_type = BigInt)]
    rank: i64,
    #[diesel(sql_type = Nullable<SmallInt>)]
    bucket: Option<i16>,
    #[diesel(sql_type = Nullable<BigInt>)]
    epoch: Option<Epoch>,
}

/// Renews the lease of a process, in one statement. Returns `None` if it has no valid lease.
///
/// A process whose lease has expired holds no bucket any more, even if no other process has acquired
/// them, because its observations may be old. It must [`register`] again.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn renew(
    connection: &mut AsyncPgConnection,
    replica: ReplicaId,
) -> Result<Option<Renewal>, StoreError> {
    let (valid, lease) = (valid_lease(), interval(BUCKET_LEASE));
    // The snapshot of `live` contains this process with its previous lease.
    let renew = sql_query(format!(
        "with renewed as (
           update keeper_replicas set lease_until = now() + {lease} where id = $1 and {valid}
           returning id),
         live as (
           select count(*) as replicas, count(*) filter (where id < $1) as rank
           from keeper_replicas where {valid})
         select live.replicas, live.rank, bucket, epoch
         from renewed cross join live left join keeper_buckets on replica = renewed.id"
    ));
    let rows: Vec<RenewalRow> =
        renew.bind::<sql_types::Uuid, _>(replica.0).load(connection).await?;
    let count = |number: i64| usize::try_from(number).unwrap_or_default();
    let Some((replicas, rank)) =
        rows.as_slice().first().map(|row| (count(row.replicas), count(row.rank)))
    else {
        return Ok(None);
    };
    let bucket = |row: RenewalRow| Some((Bucket::new(row.bucket?)?, row.epoch?));
    let held = rows.into_iter().filter_map(bucket).collect();
    Ok(Some(Renewal { held, replicas, rank }))
}

/// Takes the first lease of a process, or a new one after its lease expired. Releases the buckets
/// that it held before.
///
/// # Errors
/// Returns a [`StoreError`] if a query fails.
pub async fn register(
    connection: &mut AsyncPgConnection,
    replica: ReplicaId,
) -> Result<(), StoreError> {
    let lease_until = now.into_sql::<Timestamptz>() + BUCKET_LEASE;
    diesel::update(keeper_buckets::table.filter(keeper_buckets::replica.eq(replica.0)))
        .set(keeper_buckets::replica.eq(None::<Uuid>))
        .execute(connection)
        .await?;
    diesel::insert_into(keeper_replicas::table)
        .values((keeper_replicas::id.eq(replica.0), keeper_replicas::lease_until.eq(lease_until)))
        .on_conflict(keeper_replicas::id)
        .do_update()
        .set(keeper_replicas::lease_until.eq(lease_until))
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes up to `limit` buckets that no process with a valid lease holds.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn acquire(
    connection: &mut AsyncPgConnection,
    replica: ReplicaId,
    limit: usize,
) -> Result<HeldBuckets, StoreError> {
    let valid = valid_lease();
    // The lock compares the epoch again: the holder of a bucket that another process took meanwhile
    // is not in the snapshot of this statement. It is not cached, because buckets move rarely.
    let acquire = sql_query(format!(
        "with free as materialized (
           select bucket, epoch from keeper_buckets
           where not exists (select from keeper_replicas where id = replica and {valid})
           limit $2),
         locked as materialized (
           select bucket from keeper_buckets join free using (bucket, epoch)
           for update of keeper_buckets skip locked)
         update keeper_buckets set replica = $1, epoch = epoch + 1
         from locked where keeper_buckets.bucket = locked.bucket
         returning keeper_buckets.bucket, epoch"
    ));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let acquired: Vec<BucketRow> = acquire
        .bind::<sql_types::Uuid, _>(replica.0)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?;
    let bucket = |row: BucketRow| Some((Bucket::new(row.bucket)?, row.epoch));
    Ok(acquired.into_iter().filter_map(bucket).collect())
}

/// Releases some buckets of a process, so that another one may take them.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn release(
    connection: &mut AsyncPgConnection,
    replica: ReplicaId,
    buckets: &[Bucket],
) -> Result<(), StoreError> {
    let numbers = buckets.iter().map(|bucket| bucket.number());
    let released = keeper_buckets::table
        .filter(keeper_buckets::replica.eq(replica.0))
        .filter(keeper_buckets::bucket.eq_any(numbers));
    diesel::update(released)
        .set(keeper_buckets::replica.eq(None::<Uuid>))
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends the lease of a process that stops, so that others may acquire its buckets at once.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn unregister(
    connection: &mut AsyncPgConnection,
    replica: ReplicaId,
) -> Result<(), StoreError> {
    diesel::delete(keeper_replicas::table.find(replica.0)).execute(connection).await?;
    Ok(())
}

/// Deletes the replicas whose lease expired long ago, and inserts missing buckets, such as ones that
/// were deleted by hand. Returns how many were missing.
///
/// # Errors
/// Returns a [`StoreError`] if a query fails.
pub async fn repair(connection: &mut AsyncPgConnection) -> Result<usize, StoreError> {
    let expired = now.into_sql::<Timestamptz>() - REPLICA_RETENTION;
    diesel::delete(keeper_replicas::table.filter(keeper_replicas::lease_until.lt(expired)))
        .execute(connection)
        .await?;
    // The epoch is larger than any before: a process may still have the previous row's.
    let restored = sql_query(format!(
        "insert into keeper_buckets (bucket, epoch)
         select bucket, extract(epoch from now())::bigint from generate_series(0, {}) as bucket
         on conflict do nothing",
        Bucket::COUNT - 1
    ));
    Ok(restored.execute(connection).await?)
}
