//! Starts that arrive together share a statement, and each gets its own outcome.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_core::domain::{IdempotencyKey, SessionCount, SessionId, SessionTemplateId, UserId};
use greenroom_core::{
    Caller, Error, Greenroom, MemoryRooms, SessionLimit, StartRequest, StartedSession, StoreError,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::{on_join_template, organization, service};

/// Number of concurrent starts, the maximum of one statement.
const STARTS: usize = 64;

const TIMEOUT: Duration = Duration::from_secs(10);

/// An organization with an `on_join` template.
struct Tenant {
    caller: Caller,
    template: SessionTemplateId,
}

impl Tenant {
    async fn new(greenroom: &Greenroom) -> Self {
        let caller = Caller::backend(organization());
        let template = on_join_template(greenroom, &caller).await;
        Self { caller, template }
    }
}

type Outcome = Result<StartedSession, Error>;

fn spawn_start(
    greenroom: &Greenroom,
    caller: &Caller,
    request: StartRequest,
) -> JoinHandle<Outcome> {
    let (greenroom, caller) = (greenroom.clone(), caller.clone());
    tokio::spawn(async move { greenroom.start(&caller, request).await })
}

fn user(name: &str) -> UserId {
    UserId::try_from(name.to_owned()).unwrap()
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

async fn count(db: &mut AsyncPgConnection, condition: &str) -> usize {
    let query = format!("select count(*) from sessions where {condition}");
    let count: Count = sql_query(query).get_result(db).await.unwrap();
    usize::try_from(count.count).unwrap()
}

/// Blocks inserts until the transaction ends. Starts that arrive meanwhile share a statement.
async fn block_inserts(database: &Database) -> AsyncPgConnection {
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute("begin; lock table sessions in share mode").await.unwrap();
    db
}

/// The statements of this database that wait for its sessions. Other tests use the same server.
const WAITING: &str =
    "select pid from pg_locks where relation = 'sessions'::regclass and not granted
    and database = (select oid from pg_database where datname = current_database())";

/// Waits until two statements wait for the transaction of [`block_inserts`]: the other starts are then
/// queued.
async fn wait_until_blocked(db: &mut AsyncPgConnection) {
    let blocked =
        format!("do $$ begin assert (select count(*) from ({WAITING}) waiting) = 2; end $$");
    let mut savepoint = db.batch_execute("savepoint before").await;
    wait_until("two statements to wait", TIMEOUT, async || {
        let found = db.batch_execute(&blocked).await;
        savepoint = db.batch_execute("rollback to before").await;
        Ok(found.ok())
    })
    .await
    .unwrap();
    savepoint.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_postgresql_rejects_fails_alone() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let tenant = Tenant::new(&greenroom).await;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(
        "alter table sessions add constraint not_poisoned check (user_id is distinct from 'poison')",
    )
    .await
    .unwrap();
    let mut blocked = block_inserts(&database).await;
    let starts: Vec<_> = (0..STARTS)
        .map(|number| {
            let name = if number % 20 == 10 { "poison" } else { "ann" };
            let mut request = StartRequest::new(tenant.template);
            request.user_id = Some(user(name));
            (name, spawn_start(&greenroom, &tenant.caller, request))
        })
        .collect();
    wait_until_blocked(&mut blocked).await;
    blocked.batch_execute("commit").await.unwrap();
    for (name, start) in starts {
        let outcome = start.await.unwrap();
        assert_eq!(outcome.is_err(), name == "poison", "{:?}", outcome.err());
    }
    assert_eq!(count(&mut db, "true").await, STARTS - 3);
}

/// A newer version has started the session that one of the users resumes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_cannot_be_decoded_fails_alone() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let tenant = Tenant::new(&greenroom).await;
    let start = |name: &str| {
        let caller = Caller::end_user(tenant.caller.organization_id, user(name));
        spawn_start(&greenroom, &caller, StartRequest::new(tenant.template))
    };
    start("ann").await.unwrap().unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute("update sessions set modality_profile = 'smell'").await.unwrap();
    let mut blocked = block_inserts(&database).await;
    let others: Vec<_> = (0..STARTS).map(|number| start(&format!("user-{number}"))).collect();
    let ann = start("ann");
    wait_until_blocked(&mut blocked).await;
    blocked.batch_execute("commit").await.unwrap();
    for other in others {
        assert!(!other.await.unwrap().unwrap().replayed);
    }
    ann.await.unwrap().unwrap_err();
    assert_eq!(count(&mut db, "true").await, STARTS + 1);
    let statements = "id in (select distinct on (xmin::text) id from sessions)";
    assert!(count(&mut db, statements).await < STARTS / 4, "the starts share statements");
}

/// A service, and a session whose deletion another transaction has not yet committed. Until then,
/// starts with the session's key wait.
struct LockedKey {
    greenroom: Greenroom,
    tenant: Tenant,
    session: SessionId,
    transaction: AsyncPgConnection,
    _database: Database,
}

impl LockedKey {
    async fn new(limit: SessionLimit) -> Self {
        let database = Database::fresh().await.unwrap();
        let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
        let tenant = Tenant::new(&greenroom).await;
        let id = tenant.caller.organization_id;
        greenroom.admin().set_session_limit(id, limit).await.unwrap();
        let started = greenroom.start(&tenant.caller, keyed(&tenant, "locked")).await.unwrap();
        let mut transaction = AsyncPgConnection::establish(database.url()).await.unwrap();
        // Until this transaction ends, PostgreSQL does not know whether the key is still held.
        transaction.batch_execute("begin; delete from sessions").await.unwrap();
        let session = started.session.id;
        Self { greenroom, tenant, session, transaction, _database: database }
    }

    fn start(&self, key: &str) -> JoinHandle<Outcome> {
        spawn_start(&self.greenroom, &self.tenant.caller, keyed(&self.tenant, key))
    }
}

fn keyed(tenant: &Tenant, key: &str) -> StartRequest {
    let mut request = StartRequest::new(tenant.template);
    request.idempotency_key = Some(IdempotencyKey::try_from(key.to_owned()).unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_key_delays_only_its_own_starts() {
    let mut key = LockedKey::new(SessionLimit::Unlimited).await;
    let mut locked = Vec::new();
    let begun = Instant::now();
    for number in 0..STARTS {
        locked.push(key.start("locked"));
        let started = key.start(&format!("other-{number}")).await.unwrap();
        assert!(!started.unwrap().replayed);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(locked.iter().all(|start| !start.is_finished()), "the key is locked");
    key.transaction.batch_execute("rollback").await.unwrap();
    for start in locked {
        assert_eq!(start.await.unwrap().unwrap().session.id, key.session);
    }
}

/// The statements that a session of a locked key can make wait in an organization with a limit.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    /// The statement that finds the session of the key.
    Replay,
    /// The insert, with the organization's lock, because the session of the key is not committed yet.
    Insert,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_key_of_limited_organization_fails_only_its_own_starts() {
    for waiting in [Waiting::Replay, Waiting::Insert] {
        let limit = SessionLimit::AtMost(SessionCount::constant::<1000>());
        let mut key = LockedKey::new(limit).await;
        if let Waiting::Insert = waiting {
            for statement in [
                "rollback",
                "create temporary table saved as select * from sessions",
                "delete from sessions",
                "begin",
                "insert into sessions select * from saved",
            ] {
                key.transaction.batch_execute(statement).await.unwrap();
            }
        }
        let starts: Vec<_> = (0..STARTS)
            .map(|number| (key.start("locked"), key.start(&format!("other-{number}"))))
            .collect();
        for (locked, other) in starts {
            assert!(!other.await.unwrap().unwrap().replayed, "{waiting:?}");
            let error = locked.await.unwrap().unwrap_err();
            assert!(matches!(error, Error::Store(StoreError::Timeout(_))), "{waiting:?} {error:?}");
        }
    }
}

/// The first insert is blocked, and the others wait for it without a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_of_a_start_in_progress_return_its_session() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let tenant = Tenant::new(&greenroom).await;
    let mut blocked = block_inserts(&database).await;
    let start = |request| spawn_start(&greenroom, &tenant.caller, request);
    let retries: Vec<_> = (0..STARTS).map(|_| start(keyed(&tenant, "key"))).collect();
    let mut other_request = keyed(&tenant, "key");
    other_request.user_id = Some(user("other"));
    wait_until("the first statement to wait", TIMEOUT, async || {
        let waiting = sql_query(WAITING).execute(&mut blocked).await?;
        Ok((waiting == 1).then_some(()))
    })
    .await
    .unwrap();
    let reused = start(other_request);
    let plain = start(StartRequest::new(tenant.template));
    wait_until_blocked(&mut blocked).await;
    blocked.batch_execute("commit").await.unwrap();
    plain.await.unwrap().unwrap();
    let (mut sessions, mut written) = (HashSet::new(), 0);
    for retry in retries {
        let started = retry.await.unwrap().unwrap();
        sessions.insert(started.session.id);
        written += usize::from(!started.replayed);
    }
    assert_eq!((sessions.len(), written), (1, 1));
    assert!(matches!(reused.await.unwrap(), Err(Error::IdempotencyKeyReused)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_of_terminated_statement_get_errors_and_leave_no_open_sessions() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let tenant = Tenant::new(&greenroom).await;
    let mut blocked = block_inserts(&database).await;
    let mut starts = JoinSet::new();
    for _ in 0..STARTS {
        let start = spawn_start(&greenroom, &tenant.caller, StartRequest::new(tenant.template));
        starts.spawn(async move { start.await.unwrap() });
    }
    let terminate = format!("select pg_terminate_backend(pid) from ({WAITING}) waiting");
    wait_until("a statement to terminate", TIMEOUT, async || {
        Ok(Some(sql_query(&terminate).execute(&mut blocked).await?).filter(|count| *count > 0))
    })
    .await
    .unwrap();
    blocked.batch_execute("commit").await.unwrap();
    let outcomes = starts.join_all().await;
    let started = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(started < STARTS, "no statement was terminated");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Error::Store(_)))));
    wait_until("the other sessions to be over", TIMEOUT, async || {
        Ok((count(&mut blocked, "status = 'pending'").await == started).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_organization_does_not_delay_starts_of_others() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let (limited, other) = (Tenant::new(&greenroom).await, Tenant::new(&greenroom).await);
    let id = limited.caller.organization_id;
    let limit = SessionLimit::AtMost(SessionCount::constant::<1000>());
    greenroom.admin().set_session_limit(id, limit).await.unwrap();
    greenroom.start(&limited.caller, StartRequest::new(limited.template)).await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let lock = format!("begin; select from organizations where id = '{id}' for update");
    db.batch_execute(&lock).await.unwrap();
    let waiting: Vec<_> = (0..STARTS)
        .map(|_| spawn_start(&greenroom, &limited.caller, StartRequest::new(limited.template)))
        .collect();
    for _ in 0..STARTS {
        greenroom.start(&other.caller, StartRequest::new(other.template)).await.unwrap();
    }
    assert!(waiting.iter().all(|start| !start.is_finished()), "the organization is locked");
    db.batch_execute("commit").await.unwrap();
    for start in waiting {
        start.await.unwrap().unwrap();
    }
}
