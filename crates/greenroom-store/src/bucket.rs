//! The buckets of sessions, and the lease of the process that holds them.
//!
//! A bucket changes its owner rarely, and a process renews one row for all its buckets. A write of
//! the keeper names the epoch of the bucket: after a move, the writes of the previous owner are
//! refused.

use std::collections::HashMap;

use chrono::TimeDelta;
use diesel::dsl::{now, sql};
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{self, BigInt, Bool, Timestamptz};
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
#[derive(Queryable, QueryableByName)]
#[diesel(table_name = keeper_buckets)]
struct BucketRow {
    bucket: i16,
    epoch: Epoch,
}

fn held(rows: Vec<BucketRow>) -> HeldBuckets {
    rows.into_iter().filter_map(|row| Some((Bucket::new(row.bucket)?, row.epoch))).collect()
}

/// SQL condition: the lease of the replica is valid. A lease that ends too late was written before
/// the clock of PostgreSQL was set back, and would block its buckets until then.
fn valid_lease() -> String {
    let lease = interval(BUCKET_LEASE);
    format!("lease_until > now() and lease_until <= now() + 2 * {lease}")
}

/// [`valid_lease`] for diesel.
fn has_valid_lease() -> SqlLiteral<Bool> {
    sql(&format!("({})", valid_lease()))
}

/// The bucket, if it has this epoch and its holder's lease is valid.
#[diesel::dsl::auto_type(no_type_alias)]
pub(crate) fn held_bucket(bucket: Bucket, epoch: Epoch) -> _ {
    let number: i16 = bucket.number();
    keeper_buckets::table
        .inner_join(
            keeper_replicas::table.on(keeper_replicas::id.nullable().eq(keeper_buckets::replica)),
        )
        .filter(keeper_buckets::bucket.eq(number))
        .filter(keeper_buckets::epoch.eq(epoch))
        .filter(keeper_replicas::lease_until.gt(now.into_sql::<Timestamptz>()))
}

/// Renews the lease of a process, or takes its first one. Returns the buckets that it holds.
///
/// A process whose lease has expired holds no bucket any more, even if no other process has taken
/// them: its observations may be old.
///
/// # Errors
/// Returns a [`StoreError`] if a query fails.
pub async fn renew(
    connection: &mut AsyncPgConnection,
    replica: ReplicaId,
) -> Result<HeldBuckets, StoreError> {
    let lease_until = now.into_sql::<Timestamptz>() + BUCKET_LEASE;
    let renewed = diesel::update(keeper_replicas::table.find(replica.0))
        .filter(has_valid_lease())
        .set(keeper_replicas::lease_until.eq(lease_until))
        .execute(connection)
        .await?;
    if renewed == 0 {
        register(connection, replica).await?;
        return Ok(HeldBuckets::new());
    }
    let rows: Vec<BucketRow> = keeper_buckets::table
        .filter(keeper_buckets::replica.eq(replica.0))
        .select((keeper_buckets::bucket, keeper_buckets::epoch))
        .load(connection)
        .await?;
    Ok(held(rows))
}

/// Releases what the process held before its lease expired, and takes a new lease.
async fn register(
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
    let expired = now.into_sql::<Timestamptz>() - REPLICA_RETENTION;
    diesel::delete(keeper_replicas::table.filter(keeper_replicas::lease_until.lt(expired)))
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the number of processes with a valid lease.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn count_replicas(connection: &mut AsyncPgConnection) -> Result<usize, StoreError> {
    let count: i64 =
        keeper_replicas::table.filter(has_valid_lease()).count().get_result(connection).await?;
    Ok(usize::try_from(count).unwrap_or(0))
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
    Ok(held(acquired))
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

/// Ends the lease of a process that stops, so that others may take its buckets at once.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn retire(
    connection: &mut AsyncPgConnection,
    replica: ReplicaId,
) -> Result<(), StoreError> {
    diesel::delete(keeper_replicas::table.find(replica.0)).execute(connection).await?;
    Ok(())
}

/// Inserts missing buckets, such as ones that were deleted by hand. Returns how many were missing.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn restore_missing(connection: &mut AsyncPgConnection) -> Result<usize, StoreError> {
    let all: Vec<_> = (0..Bucket::COUNT)
        .filter_map(|number| i16::try_from(number).ok())
        .map(|number| keeper_buckets::bucket.eq(number))
        .collect();
    let inserted = diesel::insert_into(keeper_buckets::table)
        .values(all)
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(inserted)
}
