//! The plan and the cost of reading a page of a long list of sessions.

use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId, SessionStatus};
use greenroom_store::{PageStart, Session, SessionFilter, SessionKey, connect, session};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
const SESSIONS: i64 = 100_000;
const LIMIT: i64 = 51;

/// Inserts sessions `interval` milliseconds apart, of which one in a thousand is pending. Foreign keys are not
/// checked, because the check would look up the template for each session.
async fn fill(database: &Database, interval: i64) {
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    sql_query("set session_replication_role = replica").execute(&mut db).await.unwrap();
    sql_query(
        "insert into sessions (organization_id, id, session_template_id, session_template_version, room_name,
           participant_identity, room_creation, status, agent_status, end_reason, token_expiry, created_at, ended_at,
           join_by, next_check_at)
         select $1, (lpad(to_hex(1700000000000 + n * $3), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
           $1, 1, 'room_' || n, 'guest', 'on_join', case when n % 1000 = 0 then 'pending' else 'ended' end, 'none',
           case when n % 1000 = 0 then null else 'requested' end, now(), to_timestamp((1700000000000 + n * $3) / 1000.0),
           case when n % 1000 = 0 then null else now() end, now(), case when n % 1000 = 0 then now() end
         from generate_series(1, $2) n",
    )
    .bind::<SqlUuid, _>(ORGANIZATION)
    .bind::<BigInt, _>(SESSIONS)
    .bind::<BigInt, _>(interval)
    .execute(&mut db)
    .await
    .unwrap();
    sql_query("vacuum analyze sessions").execute(&mut db).await.unwrap();
}

/// PostgreSQL's statistics of the table and its indexes.
#[derive(QueryableByName, Debug, Clone, Copy)]
struct Statistics {
    #[diesel(sql_type = BigInt)]
    buffers: i64,
    #[diesel(sql_type = BigInt)]
    table_scans: i64,
    #[diesel(sql_type = BigInt)]
    primary_key_scans: i64,
    #[diesel(sql_type = BigInt)]
    live_index_scans: i64,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

async fn statistics(db: &mut AsyncPgConnection) -> Statistics {
    sql_query("select pg_stat_force_next_flush()").execute(db).await.unwrap();
    sql_query("select pg_stat_clear_snapshot()").execute(db).await.unwrap();
    sql_query(
        "select heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit as buffers, seq_scan as table_scans,
           (select idx_scan from pg_stat_user_indexes where indexrelname = 'sessions_pkey') as primary_key_scans,
           (select idx_scan from pg_stat_user_indexes where indexrelname = 'sessions_live') as live_index_scans,
           idx_tup_fetch as rows
         from pg_statio_user_tables join pg_stat_user_tables using (relid)
         where pg_statio_user_tables.relname = 'sessions'",
    )
    .get_result(db)
    .await
    .unwrap()
}

/// A page, the number of buffers it read, and its scans of the table, of the primary key and of
/// the index `sessions_live`.
async fn page(
    db: &mut AsyncPgConnection,
    filter: &SessionFilter,
    start: PageStart<SessionId>,
) -> (Vec<Session>, i64, [i64; 3]) {
    // The first query also reads the catalogs, so only the second one is measured.
    session::list(db, ORGANIZATION, filter, start, LIMIT).await.unwrap();
    let before = statistics(db).await;
    let sessions = session::list(db, ORGANIZATION, filter, start, LIMIT).await.unwrap();
    let after = statistics(db).await;
    let scans = [
        after.table_scans - before.table_scans,
        after.primary_key_scans - before.primary_key_scans,
        after.live_index_scans - before.live_index_scans,
    ];
    let sessions = sessions.into_iter().map(|listed| listed.row.unwrap()).collect();
    (sessions, after.buffers - before.buffers, scans)
}

#[tokio::test]
async fn last_page_costs_as_much_as_the_first() {
    let database = Database::fresh().await.unwrap();
    fill(&database, 1).await;
    let mut db = connect(database.url()).await.unwrap();
    let all = SessionFilter::default();
    let (first, first_buffers, scans) = page(&mut db, &all, PageStart::Offset(0)).await;
    assert_eq!(scans, [0, 1, 0], "one scan of the primary key");
    let near_end = SessionId::first_from(
        chrono::DateTime::from_timestamp_millis(1_700_000_000_000 + LIMIT + 1).unwrap(),
    );
    let (last, buffers, scans) = page(&mut db, &all, PageStart::After(near_end)).await;
    assert_eq!(scans, [0, 1, 0], "one scan of the primary key");
    assert_eq!((first.len(), last.len()), (51, 51));
    assert!(last.last().unwrap().room_name.to_string().ends_with("room_1"));
    println!("the first page reads {first_buffers} buffers, the last {buffers}");
    assert!(buffers <= first_buffers + 2, "{buffers} buffers, the first page {first_buffers}");

    // As a control, a page by OFFSET reads all sessions before it.
    let (_, buffers, _) = page(&mut db, &all, PageStart::Offset(SESSIONS / 10)).await;
    assert!(buffers > 10 * first_buffers, "{buffers} buffers");

    // A partial index finds the pending sessions among a thousand times as many.
    for status in [vec![SessionStatus::Pending], SessionStatus::OPEN.to_vec()] {
        let mut open = SessionFilter::default();
        open.status = status;
        let (found, buffers, scans) = page(&mut db, &open, PageStart::Offset(0)).await;
        assert_eq!((found.len(), scans), (51, [0, 0, 1]));
        assert!(buffers < 200, "{buffers} buffers");
    }

    // Reading one session scans the primary key once.
    let before = statistics(&mut db).await;
    let key = SessionKey { organization_id: ORGANIZATION, id: last[0].id };
    assert_eq!(session::find_many(&mut db, &[key]).await.unwrap().len(), 1);
    let after = statistics(&mut db).await;
    assert_eq!(
        (
            after.table_scans - before.table_scans,
            after.primary_key_scans - before.primary_key_scans
        ),
        (0, 1)
    );
    assert!(after.buffers - before.buffers <= 8, "{before:?} {after:?}");
}

#[tokio::test]
async fn page_before_a_time_reads_at_most_the_sessions_of_two_days_in_addition() {
    // 20,000 sessions in two days.
    const INTERVAL: i64 = 8_640;
    const IN_TWO_DAYS: i64 = 20_000;
    let database = Database::fresh().await.unwrap();
    fill(&database, INTERVAL).await;
    let mut db = connect(database.url()).await.unwrap();
    let created_before =
        chrono::DateTime::from_timestamp_millis(1_700_000_000_000 + (SESSIONS / 2) * INTERVAL);
    let mut filter = SessionFilter::default();
    filter.created_before = created_before;
    let read = async |db: &mut AsyncPgConnection, start| {
        session::list(db, ORGANIZATION, &filter, start, LIMIT).await.unwrap();
        let before = statistics(db).await;
        let listed = session::list(db, ORGANIZATION, &filter, start, LIMIT).await.unwrap();
        let after = statistics(db).await;
        assert_eq!(after.table_scans - before.table_scans, 0);
        (listed, after.rows - before.rows, after.buffers - before.buffers)
    };
    let (first, rows, buffers) = read(&mut db, PageStart::Offset(0)).await;
    println!("the first page reads {rows} rows in {buffers} buffers");
    assert_eq!(first.len(), 51);
    assert!((LIMIT..=IN_TWO_DAYS + LIMIT + 1).contains(&rows), "{rows} rows");
    assert!(buffers < 1_500, "{buffers} buffers");

    let last = SessionId(first.last().unwrap().id);
    let (_, rows, _) = read(&mut db, PageStart::After(last)).await;
    assert_eq!(rows, LIMIT, "a page by cursor reads only its own rows");
}
