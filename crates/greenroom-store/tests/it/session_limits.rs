//! Limits of active sessions: their maximum, and the lock that a start needs.

use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionCount};
use greenroom_store::{
    NewSession, SessionLimit, StartDefaults, StoreError, connect, open_sessions, organization,
};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

use crate::open_sessions::count;
use crate::session::{DEFAULTS, ORGANIZATION, room, session, template};

const ONE: SessionCount = SessionCount::constant::<1>();
const TWO: SessionCount = SessionCount::constant::<2>();

fn start(number: u32) -> NewSession {
    NewSession { room_name: room(number), ..session(number.into()) }
}

/// Starts a session under the lock of an organization, and returns whether it was inserted.
pub async fn start_under_lock(
    db: &mut AsyncPgConnection,
    new: &NewSession,
    of: OrganizationId,
) -> bool {
    let started = db.transaction(async |db: &mut AsyncPgConnection| {
        let lock = organization::lock_sessions(db, of, new.defaults.max_active_sessions).await?;
        Ok::<_, StoreError>(new.insert(db, Some(&lock)).await?.is_some())
    });
    started.await.unwrap()
}

#[tokio::test]
async fn maximum_is_own_limit_or_default() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let unknown = organization::lock_sessions(&mut db, ORGANIZATION, Some(TWO)).await.unwrap();
    assert_eq!(unknown.maximum(), Some(TWO), "an organization without a row");
    template(&mut db, None).await;
    start(1).insert(&mut db, None).await.unwrap().unwrap();
    let mut number = 1;
    for (limit, default, maximum) in [
        (SessionLimit::Default, None, None),
        (SessionLimit::Default, Some(ONE), Some(ONE)),
        (SessionLimit::AtMost(ONE), None, Some(ONE)),
        (SessionLimit::AtMost(ONE), Some(TWO), Some(ONE)),
        (SessionLimit::Unlimited, None, None),
        (SessionLimit::Unlimited, Some(ONE), None),
    ] {
        organization::set_limit(&mut db, ORGANIZATION, limit).await.unwrap();
        let lock = organization::lock_sessions(&mut db, ORGANIZATION, default).await.unwrap();
        assert_eq!(lock.maximum(), maximum, "{limit:?} {default:?}");
        let (usage, _) = organization::usage(&mut db, ORGANIZATION, default).await.unwrap();
        assert_eq!(usage, maximum, "{limit:?} {default:?}");
        number += 1;
        let defaults = StartDefaults { max_active_sessions: default, ..DEFAULTS };
        let new = NewSession { defaults, ..start(number) };
        let is_started = start_under_lock(&mut db, &new, ORGANIZATION).await;
        assert_eq!(is_started, maximum.is_none(), "{limit:?} {default:?}");
    }
}

#[tokio::test]
async fn start_in_limited_organization_needs_lock_of_that_organization() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let other = OrganizationId(Uuid::from_u128(9));
    organization::ensure(&mut db, other).await.unwrap();
    let defaults = StartDefaults { max_active_sessions: Some(TWO), ..DEFAULTS };
    let new = NewSession { defaults, ..start(1) };
    assert!(new.insert(&mut db, None).await.unwrap().is_none());
    assert!(!start_under_lock(&mut db, &new, other).await);
    assert!(start_under_lock(&mut db, &new, ORGANIZATION).await);
}

#[derive(QueryableByName)]
struct Scans {
    #[diesel(sql_type = BigInt)]
    scans: i64,
}

/// The number of scans of the sessions that could count the open ones.
async fn counting_scans(db: &mut AsyncPgConnection) -> i64 {
    sql_query("select pg_stat_force_next_flush()").execute(db).await.unwrap();
    sql_query("select pg_stat_clear_snapshot()").execute(db).await.unwrap();
    let scans = "select seq_scan + (select sum(idx_scan) from pg_stat_user_indexes
           where relname = 'sessions' and indexrelname in ('sessions_live', 'sessions_pkey'))::bigint as scans
         from pg_stat_user_tables where relname = 'sessions'";
    let scans: Scans = sql_query(scans).get_result(db).await.unwrap();
    scans.scans
}

#[tokio::test]
async fn start_in_limited_organization_does_not_count_sessions() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    organization::set_limit(&mut db, ORGANIZATION, SessionLimit::AtMost(TWO)).await.unwrap();
    count(&mut db, ORGANIZATION).await;
    assert!(start_under_lock(&mut db, &start(1), ORGANIZATION).await);
    let before = counting_scans(&mut db).await;
    assert!(start_under_lock(&mut db, &start(2), ORGANIZATION).await);
    assert!(!start_under_lock(&mut db, &start(3), ORGANIZATION).await);
    assert_eq!(counting_scans(&mut db).await - before, 0);
}

#[tokio::test]
async fn usage_reads_finished_count_instead_of_sessions() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    organization::set_limit(&mut db, ORGANIZATION, SessionLimit::AtMost(TWO)).await.unwrap();
    assert!(start_under_lock(&mut db, &start(1), ORGANIZATION).await);
    let usage = async |db: &mut AsyncPgConnection| {
        organization::usage(db, ORGANIZATION, None).await.unwrap()
    };
    open_sessions::begin(&mut db, ORGANIZATION).await.unwrap().unwrap();
    assert_eq!(usage(&mut db).await, (Some(TWO), 1), "the count is not finished");
    count(&mut db, ORGANIZATION).await;
    let pending = "insert into open_session_changes (organization_id, change) values ($1, 2)";
    sql_query(pending).bind::<SqlUuid, _>(ORGANIZATION).execute(&mut db).await.unwrap();
    let before = counting_scans(&mut db).await;
    assert_eq!(usage(&mut db).await, (Some(TWO), 3), "with the changes of concurrent writers");
    assert_eq!(counting_scans(&mut db).await - before, 0);
}
