//! What a page of sessions costs: the same wherever it is in the list.

use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId, SessionStatus};
use greenroom_store::{PageStart, Session, SessionFilter, connect};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
const SESSIONS: i64 = 1_000_000;
const LIMIT: i64 = 51;

/// A million sessions a millisecond apart, one in a thousand of them living, written past the
/// foreign key, which would look up the one template a million times.
async fn fill(database: &Database) {
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    sql_query("set session_replication_role = replica").execute(&mut db).await.unwrap();
    sql_query(
        "insert into sessions (organization_id, id, session_template_id, session_template_version, room_name,
           participant_identity, room_creation, status, agent_status, end_reason, token_expiry, created_at, ended_at,
           join_by, next_check_at)
         select $1, (lpad(to_hex(1700000000000 + n), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
           $1, 1, 'room_' || n, 'guest', 'on_join', case when n % 1000 = 0 then 'pending' else 'ended' end, 'none',
           case when n % 1000 = 0 then null else 'requested' end, now(), now(),
           case when n % 1000 = 0 then null else now() end, now(), case when n % 1000 = 0 then now() end
         from generate_series(1, $2) n",
    )
    .bind::<SqlUuid, _>(ORGANIZATION)
    .bind::<BigInt, _>(SESSIONS)
    .execute(&mut db)
    .await
    .unwrap();
    sql_query("vacuum analyze sessions").execute(&mut db).await.unwrap();
}

/// What PostgreSQL has counted so far of the table and its indexes.
#[derive(QueryableByName, Debug, Clone, Copy)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    buffers: i64,
    #[diesel(sql_type = BigInt)]
    scans: i64,
    #[diesel(sql_type = BigInt)]
    by_key: i64,
    #[diesel(sql_type = BigInt)]
    by_living: i64,
}

async fn counted(db: &mut AsyncPgConnection) -> Counted {
    sql_query("select pg_stat_force_next_flush()").execute(db).await.unwrap();
    sql_query("select pg_stat_clear_snapshot()").execute(db).await.unwrap();
    sql_query(
        "select heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit as buffers, seq_scan as scans,
           (select idx_scan from pg_stat_user_indexes where indexrelname = 'sessions_pkey') as by_key,
           (select idx_scan from pg_stat_user_indexes where indexrelname = 'sessions_live') as by_living
         from pg_statio_user_tables join pg_stat_user_tables using (relid)
         where pg_statio_user_tables.relname = 'sessions'",
    )
    .get_result(db)
    .await
    .unwrap()
}

/// A page, the buffers it took, and the scans that found it: of the table, of its key, of the
/// living.
async fn page(
    db: &mut AsyncPgConnection,
    filter: &SessionFilter,
    start: PageStart<SessionId>,
) -> (Vec<Session>, i64, [i64; 3]) {
    // Once for what is only looked up the first time, then counted.
    Session::list(db, ORGANIZATION, filter, start, LIMIT).await.unwrap();
    let before = counted(db).await;
    let sessions = Session::list(db, ORGANIZATION, filter, start, LIMIT).await.unwrap();
    let after = counted(db).await;
    let scans = [
        after.scans - before.scans,
        after.by_key - before.by_key,
        after.by_living - before.by_living,
    ];
    (sessions, after.buffers - before.buffers, scans)
}

#[tokio::test]
async fn the_page_a_million_sessions_deep_costs_what_the_first_one_does() {
    let database = Database::fresh().await.unwrap();
    fill(&database).await;
    let mut db = connect(database.url()).await.unwrap();
    let all = SessionFilter::default();
    let (first, first_buffers, scans) = page(&mut db, &all, PageStart::Offset(0)).await;
    assert_eq!(scans, [0, 1, 0], "by the key alone");
    let near_the_end = SessionId::first_from(
        chrono::DateTime::from_timestamp_millis(1_700_000_000_000 + LIMIT + 1).unwrap(),
    );
    let (deepest, buffers, scans) = page(&mut db, &all, PageStart::After(near_the_end)).await;
    assert_eq!(scans, [0, 1, 0], "by the key alone");
    assert_eq!((first.len(), deepest.len()), (51, 51));
    assert!(deepest.last().unwrap().room_name.as_str().ends_with("room_1"));
    println!("the first page takes {first_buffers} buffers, the deepest {buffers}");
    assert!(buffers <= first_buffers + 2, "{buffers} buffers against {first_buffers}");

    // The control: by OFFSET the same page reads all before it.
    let (_, buffers, _) = page(&mut db, &all, PageStart::Offset(SESSIONS / 100)).await;
    assert!(buffers > 10 * first_buffers, "{buffers} buffers");

    // The living are found among a thousand times as many by their own index.
    for status in [vec![SessionStatus::Pending], SessionStatus::OPEN.to_vec()] {
        let living = SessionFilter { status, ..SessionFilter::default() };
        let (found, buffers, scans) = page(&mut db, &living, PageStart::Offset(0)).await;
        assert_eq!((found.len(), scans), (51, [0, 0, 1]));
        assert!(buffers < 200, "{buffers} buffers");
    }

    // One session: a descent of the key and the row.
    let before = counted(&mut db).await;
    assert!(Session::find(&mut db, ORGANIZATION, deepest[0].id).await.unwrap().is_some());
    let after = counted(&mut db).await;
    assert_eq!((after.scans - before.scans, after.by_key - before.by_key), (0, 1));
    assert!(after.buffers - before.buffers <= 8, "{before:?} {after:?}");
}
