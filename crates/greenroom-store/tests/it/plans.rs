//! Query plans after a table has grown.

use std::time::Duration;

use chrono::TimeDelta;
use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::SessionId;
use greenroom_domain::lifecycle::Fact;
use greenroom_store::due::due_sessions;
use greenroom_store::session::list;
use greenroom_store::{
    DueSearch, Fingerprint, HeldBuckets, KeyClaim, NewSession, OpenedRoom, PageStart,
    SessionFilter, SessionKey, SessionSnapshot, StartKey, Subject, TokenReissue, connect,
    organization, record, record_own, record_rooms_opened,
};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

use crate::session::{ORGANIZATION, find, now, session, template};
use crate::snapshots::{DEFAULTS, hold_all};

/// Number of executions before the table grows. PostgreSQL may use a generic plan from the sixth.
const EXECUTIONS: usize = 8;

/// Sessions that are added after the plans were made.
const LATER_SESSIONS: i64 = 20_000;

#[derive(QueryableByName)]
struct RowsRead {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

async fn rows_read(db: &mut AsyncPgConnection) -> i64 {
    sql_query("select pg_stat_force_next_flush()").execute(db).await.unwrap();
    sql_query("select pg_stat_clear_snapshot()").execute(db).await.unwrap();
    let rows = "select seq_tup_read + (select sum(idx_tup_read) from pg_stat_user_indexes
           where relname = 'sessions')::bigint as rows
         from pg_stat_user_tables where relname = 'sessions'";
    let read: RowsRead = sql_query(rows).get_result(db).await.unwrap();
    read.rows
}

/// One uneventful check of the session that is due.
async fn check(db: &mut AsyncPgConnection, held: &HeldBuckets) {
    let keys = due_sessions(db, held, 10, DueSearch::ALL).await.unwrap();
    let batch = SessionSnapshot::read(db, &keys, held, DEFAULTS).await.unwrap();
    let due_again = Some(now(db).await - TimeDelta::seconds(1));
    let next_checks: Vec<_> = batch.sessions.iter().map(|snapshot| (snapshot, due_again)).collect();
    assert_eq!(SessionSnapshot::reschedule(db, &next_checks).await.unwrap().len(), 1);
}

/// Inserts one session, so that a scan of the table seems cheaper than an index. `analyze` is whether
/// PostgreSQL knows the table's size.
async fn prepare(db: &mut AsyncPgConnection, analyze: bool) {
    template(db, None).await;
    keyed().insert(db, None).await.unwrap().unwrap();
    for prepare in [
        "update sessions set next_check_at = now() - interval '1 second'",
        // An automatic analysis would replace the plan and hide the fault.
        "alter table sessions set (autovacuum_enabled = false)",
        if analyze { "vacuum analyze sessions" } else { "select" },
    ] {
        sql_query(prepare).execute(db).await.unwrap();
    }
}

fn keyed() -> NewSession {
    let claim = KeyClaim { hash: [7; 32], fingerprint: Fingerprint::new(1, [1; 32]) };
    NewSession { key: StartKey::Implicit(claim), ..session(1) }
}

#[tokio::test]
async fn check_reads_few_rows_after_the_table_has_grown() {
    for analyze in [false, true] {
        let database = Database::fresh().await.unwrap();
        let mut db = connect(database.url()).await.unwrap();
        prepare(&mut db, analyze).await;
        let held = hold_all(&mut db).await;
        for _ in 0..EXECUTIONS {
            check(&mut db, &held).await;
        }
        add_waiting_sessions(&database).await;

        let before = rows_read(&mut db).await;
        check(&mut db, &held).await;
        let rows = rows_read(&mut db).await - before;
        assert!(rows < 100, "a check of one session read {rows} rows, analyzed: {analyze}");
    }
}

/// A request of each kind about the same session. None of them inserts a session.
async fn request(db: &mut AsyncPgConnection, kind: &str) {
    let new = keyed();
    let (key, ttl) = (new.key.implicit().unwrap(), new.defaults.token_ttl);
    let by_id = Subject::Session { organization: ORGANIZATION, id: new.id, end_user: None };
    let finished = Fact::RoomFinished;
    match kind {
        "resumed start" => drop(new.insert(db, None).await.unwrap().unwrap()),
        "resumed starts" => {
            let other = NewSession { key: new.key, ..session(2) };
            let both = [&new, &other];
            let started = NewSession::insert_all(db, &both, None, Duration::ZERO).await.unwrap();
            assert_eq!(started.len(), 1);
        }
        "refused start of a limited organization" => {
            let lock = organization::lock_sessions(db, ORGANIZATION, None).await.unwrap();
            let new = NewSession { key: StartKey::Explicit(*key), ..new };
            assert!(new.insert(db, Some(&lock)).await.unwrap().is_none());
        }
        "replayed start" => {
            let reissue = TokenReissue::Key(key);
            reissue.execute(db, ORGANIZATION, ttl).await.unwrap().unwrap();
        }
        "refreshed token" => {
            let reissue = TokenReissue::Session { id: new.id, end_user: None };
            reissue.execute(db, ORGANIZATION, ttl).await.unwrap().unwrap();
        }
        "webhook" => {
            let at = now(db).await;
            record(db, Subject::Room(&new.room_name), &finished, at, None).await.unwrap();
        }
        "opened room" => {
            let key = SessionKey { organization_id: ORGANIZATION, id: new.id };
            let room = OpenedRoom { key, sid: "RM_1".to_owned(), holder: None };
            let open = record_rooms_opened(db, &[&room], Duration::from_secs(1)).await.unwrap();
            assert!(open.contains(&key));
        }
        "fact" => drop(record_own(db, by_id, &finished).await.unwrap()),
        "read session" => drop(find(db, new.id).await.unwrap()),
        "first page" | "next page" => {
            let start = match kind {
                "first page" => PageStart::Offset(0),
                _ => PageStart::After(SessionId(Uuid::from_u128(2))),
            };
            let page = list(db, ORGANIZATION, &SessionFilter::default(), start, 51).await.unwrap();
            assert!(!page.is_empty());
        }
        kind => panic!("{kind}"),
    }
}

#[tokio::test]
async fn requests_read_few_rows_after_the_table_has_grown() {
    let kinds = [
        "resumed start",
        "resumed starts",
        "refused start of a limited organization",
        "replayed start",
        "refreshed token",
        "webhook",
        "opened room",
        "fact",
        "read session",
        "first page",
        "next page",
    ];
    for analyze in [false, true] {
        let database = Database::fresh().await.unwrap();
        let mut db = connect(database.url()).await.unwrap();
        prepare(&mut db, analyze).await;
        for kind in kinds {
            for _ in 0..EXECUTIONS {
                request(&mut db, kind).await;
            }
        }
        add_waiting_sessions(&database).await;

        for kind in kinds {
            let before = rows_read(&mut db).await;
            request(&mut db, kind).await;
            let rows = rows_read(&mut db).await - before;
            assert!(rows < 100, "a {kind} read {rows} rows, analyzed: {analyze}");
        }
    }
}

/// Adds copies of the session. Their checks are due in an hour. Triggers are not fired, and foreign
/// keys are not checked.
async fn add_waiting_sessions(database: &Database) {
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    sql_query("set session_replication_role = replica").execute(&mut db).await.unwrap();
    let columns: Columns = sql_query(
        "select string_agg(column_name, ', ') as columns from information_schema.columns
         where table_name = 'sessions' and column_name not in ('id', 'room_name', 'next_check_at', 'idempotency_key')",
    )
    .get_result(&mut db)
    .await
    .unwrap();
    let columns = columns.columns;
    sql_query(format!(
        "insert into sessions (id, room_name, next_check_at, {columns})
         select gen_random_uuid(), 'room_' || n, now() + interval '1 hour', {columns}
         from sessions, generate_series(1, $1) n"
    ))
    .bind::<BigInt, _>(LATER_SESSIONS)
    .execute(&mut db)
    .await
    .unwrap();
}

#[derive(QueryableByName)]
struct Columns {
    #[diesel(sql_type = Text)]
    columns: String,
}
