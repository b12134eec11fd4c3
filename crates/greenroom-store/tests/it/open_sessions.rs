//! The count of open sessions: exact for every writer, and never waited for.

use std::time::Duration;

use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_domain::lifecycle::{Decision, Fact};
use greenroom_domain::{
    EndReason, OrganizationId, SessionCount, SessionId, SessionStatus, SessionTemplateId,
};
use greenroom_store::overdue::{Deadline, end_overdue};
use greenroom_store::retention::delete_old_sessions;
use greenroom_store::{
    DueRange, NewSession, SessionLimit, StartDefaults, Subject, connect, open_sessions,
    organization, record_own,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use uuid::Uuid;

use crate::session::{DEFAULTS, ORGANIZATION, now, room, session, template};
use crate::session_limits::start_under_lock;
use crate::snapshots::read_neglected;

/// A second organization, with its own template.
const OTHER: OrganizationId = OrganizationId(Uuid::from_u128(11));
const OTHER_TEMPLATE: SessionTemplateId = SessionTemplateId(Uuid::from_u128(12));

const FIVE: SessionCount = SessionCount::constant::<5>();
const MANY: SessionCount = SessionCount::constant::<60>();

const END: &str = "status = 'ended', end_reason = 'requested', ended_at = now()";

/// Sessions that no other transaction is changing, in random order.
const SOME: &str = "(organization_id, id) in (select organization_id, id from sessions
    order by random() limit 3 for update skip locked)";

/// Copies a session like a version that does not know of the count.
const COPY: &str =
    "insert into sessions select (jsonb_populate_record(sessions, jsonb_build_object(
      'id', gen_random_uuid(), 'room_name', gen_random_uuid()))).*
    from sessions order by random() limit 1";

/// A start of the version that counts the sessions itself, under the lock of the organization.
const PREVIOUS_START: &str = "begin;
    select from organizations where id = '00000000-0000-0000-0000-000000000001' for no key update;
    insert into sessions select (jsonb_populate_record(sessions, jsonb_build_object(
        'id', gen_random_uuid(), 'room_name', gen_random_uuid(), 'status', 'pending',
        'end_reason', null, 'ended_at', null, 'next_check_at', now()))).*
      from sessions where 5 > (select count(*) from sessions where status in ('pending', 'active'))
      limit 1;
    commit";

/// Begins and finishes the count of an organization, as the core does.
pub async fn count(db: &mut AsyncPgConnection, of: OrganizationId) {
    let begun = open_sessions::begin(db, of).await.unwrap().unwrap();
    let mut writers = organization::session_writers(db).await.unwrap();
    wait_until("the writers to finish", Duration::from_secs(30), async || {
        let current = organization::session_writers(db).await.unwrap();
        writers.retain(|writer| current.contains(writer));
        Ok(writers.is_empty().then_some(()))
    })
    .await
    .unwrap();
    open_sessions::finish(db, begun).await.unwrap();
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

async fn number(db: &mut AsyncPgConnection, query: &str) -> i64 {
    let number: Number = sql_query(query).get_result(db).await.unwrap();
    number.number
}

/// Compares all finished counts with the sessions, in one snapshot. Returns how many there are.
async fn assert_exact(db: &mut AsyncPgConnection) -> i64 {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = SqlUuid)]
        organization: Uuid,
        #[diesel(sql_type = BigInt)]
        counted: i64,
        #[diesel(sql_type = BigInt)]
        open: i64,
    }
    let counts: Vec<Count> = sql_query(
        "select organization_id as organization,
           open + coalesce((select sum(change) from open_session_changes changes
             where changes.organization_id = counts.organization_id), 0) as counted,
           (select count(*) from sessions where sessions.organization_id = counts.organization_id
             and status in ('pending', 'active')) as open
         from open_session_counts counts where open is not null",
    )
    .load(db)
    .await
    .unwrap();
    for Count { organization, counted, open } in &counts {
        assert_eq!(counted, open, "{organization}");
    }
    i64::try_from(counts.len()).unwrap()
}

/// Inserts the organizations and their templates.
async fn organizations(db: &mut AsyncPgConnection) {
    template(db, None).await;
    organization::ensure(db, OTHER).await.unwrap();
    sql_query(
        "insert into session_templates select (jsonb_populate_record(session_templates,
           jsonb_build_object('organization_id', $1, 'id', $2))).* from session_templates",
    )
    .bind::<SqlUuid, _>(OTHER)
    .bind::<SqlUuid, _>(OTHER_TEMPLATE)
    .execute(db)
    .await
    .unwrap();
}

fn start(number: u32) -> NewSession {
    NewSession { room_name: room(number), ..session(number.into()) }
}

/// Inserts a session of an organization whose sessions may be counted.
async fn insert(db: &mut AsyncPgConnection, new: &NewSession) {
    let lock = organization::lock_sessions(db, new.organization_id, None).await.unwrap();
    new.insert(db, Some(&lock)).await.unwrap().unwrap();
}

fn start_in_other(number: u32) -> NewSession {
    NewSession { organization_id: OTHER, session_template_id: OTHER_TEMPLATE, ..start(number) }
}

async fn end(db: &mut AsyncPgConnection, organization: OrganizationId, id: SessionId) -> bool {
    let subject = Subject::Session { organization, id, end_user: None };
    record_own(db, subject, &Fact::EndRequested).await.unwrap()
}

/// A writer that repeats random changes.
struct Writer {
    db: AsyncPgConnection,
    url: String,
    /// State of a linear congruential generator.
    random: u64,
    next_number: u32,
}

impl Writer {
    async fn new(database: &Database, index: u32) -> Self {
        let db = connect(database.url()).await.unwrap();
        let (url, random) = (database.url().to_owned(), u64::from(index) + 1);
        Self { db, url, random, next_number: 1_000_000 * (index + 1) }
    }

    fn random(&mut self, bound: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    async fn execute(&mut self, statement: &str) {
        sql_query(statement)
            .execute(&mut self.db)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    async fn write(&mut self) {
        self.next_number += 1;
        let number = self.next_number;
        match self.random(14) {
            0 => drop(start_under_lock(&mut self.db, &start(number), ORGANIZATION).await),
            // Replicas with different defaults.
            1 => {
                let defaults = StartDefaults { max_active_sessions: Some(MANY), ..DEFAULTS };
                let new = NewSession { defaults, ..start_in_other(number) };
                start_under_lock(&mut self.db, &new, OTHER).await;
            }
            2 => insert(&mut self.db, &start_in_other(number)).await,
            3 => insert(&mut self.db, &start(number)).await,
            4 => self.execute(COPY).await,
            5 => self.end_one().await,
            6 => self.end_overdue().await,
            7 => self.commit_decision().await,
            8 => self.execute(&format!("update sessions set {END} where {SOME}")).await,
            9 => {
                let reopen =
                    "status = 'active', end_reason = null, ended_at = null, next_check_at = now()";
                self.execute(&format!("update sessions set {reopen} where {SOME}")).await;
            }
            10 => self.execute(&format!("delete from sessions where {SOME}")).await,
            11 => self.retain().await,
            12 => self.roll_back().await,
            _ => self.die().await,
        }
    }

    async fn end_one(&mut self) {
        #[derive(QueryableByName)]
        struct Open {
            #[diesel(sql_type = SqlUuid)]
            organization_id: OrganizationId,
            #[diesel(sql_type = SqlUuid)]
            id: SessionId,
        }
        let open = "select organization_id, id from sessions
            where status in ('pending', 'active') order by random() limit 1";
        let open: Vec<Open> = sql_query(open).load(&mut self.db).await.unwrap();
        for Open { organization_id, id } in open {
            end(&mut self.db, organization_id, id).await;
        }
    }

    async fn end_overdue(&mut self) {
        let overdue =
            "update sessions set status = 'active', end_by = now(), next_check_at = now()";
        self.execute(&format!("{overdue} where status = 'pending' and {SOME}")).await;
        end_overdue(&mut self.db, Deadline::MaxDuration, DueRange::All).await.unwrap();
    }

    async fn commit_decision(&mut self) {
        let neglect = "update sessions set next_check_at = now() - interval '1 minute'";
        self.execute(&format!("{neglect} where {SOME}")).await;
        let at = now(&mut self.db).await;
        let due = read_neglected(&mut self.db).await;
        for claim in due.into_iter().take(2) {
            let mut state = claim.session.state.clone();
            (state.status, state.end_reason) = (SessionStatus::Ended, Some(EndReason::RoomClosed));
            state.ended_at = Some(at);
            let decision =
                Decision { state, events: Vec::new(), actions: Vec::new(), check_at: None };
            claim.commit(&mut self.db, &decision).await.unwrap();
        }
    }

    async fn retain(&mut self) {
        let old = "created_at = now() - interval '9 days', ended_at = now() - interval '8 days'";
        let over = "next_check_at = null where ended_at is not null";
        self.execute(&format!("update sessions set {old}, {over} and {SOME}")).await;
        delete_old_sessions(&mut self.db, 7).await.unwrap();
    }

    async fn roll_back(&mut self) {
        self.execute("begin").await;
        self.execute(COPY).await;
        self.execute(&format!("update sessions set {END} where {SOME}")).await;
        self.execute("rollback").await;
    }

    /// The backend is terminated in the middle of a transaction.
    async fn die(&mut self) {
        let mut doomed = connect(&self.url).await.unwrap();
        let write = format!("begin; {COPY}; update sessions set {END} where {SOME}");
        doomed.batch_execute(&write).await.unwrap();
        let die = "select pg_terminate_backend(pg_backend_pid())";
        doomed.batch_execute(die).await.unwrap_err();
    }
}

/// The limit of one organization is removed and set again meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn count_is_exact_for_every_writer() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    for number in 1..=20 {
        start(number).insert(&mut db, None).await.unwrap().unwrap();
    }
    organization::set_limit(&mut db, ORGANIZATION, SessionLimit::AtMost(MANY)).await.unwrap();
    count(&mut db, ORGANIZATION).await;
    let writers = (0..6).map(async |index| {
        let mut writer = Writer::new(&database, index).await;
        for _ in 0..120 {
            writer.write().await;
        }
    });
    let writers = futures_util::future::join_all(writers);
    let counts = async {
        let mut exact = 0;
        for _ in 0..12 {
            count(&mut db, OTHER).await;
            for _ in 0..10 {
                exact += assert_exact(&mut db).await;
            }
            organization::set_limit(&mut db, OTHER, SessionLimit::Unlimited).await.unwrap();
            organization::set_limit(&mut db, OTHER, SessionLimit::Default).await.unwrap();
        }
        exact
    };
    let (_, exact) = tokio::join!(writers, counts);
    assert!(exact >= 12 * 10 * 2, "{exact} comparisons");
    count(&mut db, OTHER).await;
    assert_eq!(assert_exact(&mut db).await, 2);
    assert!(number(&mut db, "select count(*) as number from sessions").await > 0);
}

/// Half of the writers start sessions like the previous version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_starts_of_two_versions_never_exceed_the_limit() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    organization::set_limit(&mut db, ORGANIZATION, SessionLimit::AtMost(FIVE)).await.unwrap();
    count(&mut db, ORGANIZATION).await;
    let open = "select count(*) as number from sessions where status in ('pending', 'active')";
    let writers = (0..6).map(async |index| {
        let mut writer = Writer::new(&database, index).await;
        for _ in 0..60 {
            writer.next_number += 1;
            let new = start(writer.next_number);
            if index % 2 == 0 {
                start_under_lock(&mut writer.db, &new, ORGANIZATION).await;
            } else {
                writer.db.batch_execute(PREVIOUS_START).await.unwrap();
            }
            assert!(number(&mut writer.db, open).await <= 5);
            if writer.random(2) == 0 {
                writer.end_one().await;
            }
        }
    });
    futures_util::future::join_all(writers).await;
    for number in 1..=5 {
        start_under_lock(&mut db, &start(number), ORGANIZATION).await;
    }
    assert_eq!(number(&mut db, open).await, 5);
    let one =
        "update sessions set status = 'failed', end_reason = 'livekit_error', ended_at = now()
        where id = (select id from sessions where status = 'pending' limit 1)";
    sql_query(one).execute(&mut db).await.unwrap();
    assert!(start_under_lock(&mut db, &start(7), ORGANIZATION).await, "a place is free at once");
    assert!(!start_under_lock(&mut db, &start(8), ORGANIZATION).await);
    assert_exact(&mut db).await;
}

#[tokio::test]
async fn statement_of_starts_writes_the_count_once() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    organization::set_limit(&mut db, ORGANIZATION, SessionLimit::AtMost(FIVE)).await.unwrap();
    count(&mut db, ORGANIZATION).await;
    db.batch_execute("begin").await.unwrap();
    // PostgreSQL may also include updates of earlier transactions, which it has not reported yet.
    let updates = "select n_tup_upd as number from pg_stat_xact_user_tables
        where relname = 'open_session_counts'";
    let before = number(&mut db, updates).await;
    let lock = organization::lock_sessions(&mut db, ORGANIZATION, None).await.unwrap();
    let sessions = [1, 2, 3, 4, 5, 6].map(start);
    let sessions: Vec<_> = sessions.iter().collect();
    let inserted = NewSession::insert_all(&mut db, &sessions, Some(&lock), Duration::ZERO).await;
    assert_eq!(inserted.unwrap().len(), 5);
    assert_eq!(number(&mut db, updates).await - before, 1);
    assert_exact(&mut db).await;
    db.batch_execute("rollback").await.unwrap();
    assert_exact(&mut db).await;
}

#[tokio::test]
async fn open_transaction_that_ended_a_session_blocks_no_start_and_no_end() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let mut idle = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    organization::set_limit(&mut db, ORGANIZATION, SessionLimit::AtMost(FIVE)).await.unwrap();
    count(&mut db, ORGANIZATION).await;
    for number in 1..=4 {
        assert!(start_under_lock(&mut db, &start(number), ORGANIZATION).await);
    }
    let first = "id = '00000000-0000-0000-0000-000000000001'";
    idle.batch_execute(&format!("begin; update sessions set {END} where {first}")).await.unwrap();
    db.batch_execute("set lock_timeout = '1s'").await.unwrap();
    assert!(start_under_lock(&mut db, &start(5), ORGANIZATION).await);
    assert!(!start_under_lock(&mut db, &start(6), ORGANIZATION).await, "the end is not committed");
    assert!(end(&mut db, ORGANIZATION, start(2).id).await);
    assert!(start_under_lock(&mut db, &start(6), ORGANIZATION).await);
    let changes = "select count(*) as number from open_session_changes";
    assert_eq!(number(&mut db, changes).await, 3);
    assert_exact(&mut db).await;
    idle.batch_execute("commit").await.unwrap();
    assert!(start_under_lock(&mut db, &start(7), ORGANIZATION).await);
    assert!(!start_under_lock(&mut db, &start(8), ORGANIZATION).await);
    assert_exact(&mut db).await;
    assert_eq!(number(&mut db, changes).await, 0, "the changes are merged");
}

/// Between two counts, a start does not count its session. Only the second count waits for it.
#[tokio::test]
async fn count_that_ended_does_not_finish_the_next_count() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let mut starting = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    let first = open_sessions::begin(&mut db, ORGANIZATION).await.unwrap().unwrap();
    organization::set_limit(&mut db, ORGANIZATION, SessionLimit::Unlimited).await.unwrap();
    starting.batch_execute("begin").await.unwrap();
    start(1).insert(&mut starting, None).await.unwrap().unwrap();
    let second = open_sessions::begin(&mut db, ORGANIZATION).await.unwrap().unwrap();
    open_sessions::finish(&mut db, first).await.unwrap();
    starting.batch_execute("commit").await.unwrap();
    assert_eq!(assert_exact(&mut db).await, 0, "the second count is not finished");
    open_sessions::finish(&mut db, second).await.unwrap();
    assert_eq!(assert_exact(&mut db).await, 1);
    let unknown = OrganizationId(Uuid::from_u128(99));
    assert!(open_sessions::begin(&mut db, unknown).await.unwrap().is_none());
}

/// Such transactions do not see a count that began after their snapshot.
#[tokio::test]
async fn count_is_exact_for_repeatable_read_transactions() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let mut old = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    for number in 1..=3 {
        start(number).insert(&mut db, None).await.unwrap().unwrap();
    }
    let begin = "begin isolation level repeatable read; select from organizations";
    let end = |number| {
        format!(
            "update sessions set {END} where id = '00000000-0000-0000-0000-00000000000{number}'"
        )
    };
    // Without a count, the session ends.
    old.batch_execute(&format!("{begin}; {}; commit", end(1))).await.unwrap();
    old.batch_execute(begin).await.unwrap();
    count(&mut db, ORGANIZATION).await;
    let refused = old.batch_execute(&end(2)).await.unwrap_err().to_string();
    assert!(refused.contains("could not serialize access"), "{refused}");
    old.batch_execute("rollback").await.unwrap();
    old.batch_execute(&format!("{begin}; {}; commit", end(3))).await.unwrap();
    assert_eq!(assert_exact(&mut db).await, 1);
}

#[tokio::test]
async fn connection_reads_committed_rows_whatever_the_default_of_the_database() {
    #[derive(QueryableByName)]
    struct Isolation {
        #[diesel(sql_type = Text)]
        isolation: String,
    }
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let name = database.name();
    let default =
        format!("alter database {name} set default_transaction_isolation = 'serializable'");
    db.batch_execute(&default).await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let isolation = "select current_setting('transaction_isolation') as isolation";
    let isolation: Isolation = sql_query(isolation).get_result(&mut db).await.unwrap();
    assert_eq!(isolation.isolation, "read committed");
}

#[tokio::test]
async fn start_without_count_calls_no_trigger() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    db.batch_execute("set track_functions = 'pl'").await.unwrap();
    start(1).insert(&mut db, None).await.unwrap().unwrap();
    let calls = "select coalesce(sum(calls), 0)::bigint as number from pg_stat_user_functions";
    let flush = "select pg_stat_force_next_flush()";
    db.batch_execute(flush).await.unwrap();
    assert_eq!(number(&mut db, calls).await, 0);
    // A version that does not know of the count.
    sql_query(COPY).execute(&mut db).await.unwrap();
    db.batch_execute(flush).await.unwrap();
    assert!(number(&mut db, calls).await > 0);
}

#[tokio::test]
async fn truncated_sessions_do_not_count() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    organizations(&mut db).await;
    count(&mut db, ORGANIZATION).await;
    insert(&mut db, &start(1)).await;
    assert_exact(&mut db).await;
    db.batch_execute("truncate sessions cascade").await.unwrap();
    assert_exact(&mut db).await;
}

#[tokio::test]
async fn transactions_that_end_sessions_in_opposite_order_do_not_deadlock() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let (mut one, mut other) =
        (connect(database.url()).await.unwrap(), connect(database.url()).await.unwrap());
    organizations(&mut db).await;
    for of in [ORGANIZATION, OTHER] {
        count(&mut db, of).await;
    }
    for number in 1..=2 {
        insert(&mut db, &start(number)).await;
        insert(&mut db, &start_in_other(number + 2)).await;
    }
    for (db, of, number) in [(&mut one, ORGANIZATION, 1), (&mut other, OTHER, 3)] {
        db.batch_execute("begin").await.unwrap();
        end(db, of, start(number).id).await;
    }
    end(&mut one, OTHER, start(4).id).await;
    end(&mut other, ORGANIZATION, start(2).id).await;
    one.batch_execute("commit").await.unwrap();
    other.batch_execute("commit").await.unwrap();
    assert_eq!(assert_exact(&mut db).await, 2);
    let open = "select count(*) as number from sessions where status in ('pending', 'active')";
    assert_eq!(number(&mut db, open).await, 0);
}
