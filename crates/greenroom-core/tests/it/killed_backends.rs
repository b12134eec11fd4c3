//! PostgreSQL's backends are terminated while starts share their statements: each answer is true, and
//! nothing is written twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::sql_types::Uuid;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_core::domain::{IdempotencyKey, SessionCount, SessionId, SessionTemplateId};
use greenroom_core::{
    Caller, Error, Greenroom, MemoryRooms, SessionLimit, StartRequest, StartedSession,
};
use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::{sleep_for, wait_until};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{on_join_template, organization, service};

/// Number of concurrent callers. Half of them belong to an organization with a limit.
const CALLERS: usize = 96;

const DURATION: Duration = Duration::from_secs(2);

/// Number of backends that are terminated at random, and after their commits, by turns.
const RANDOM_KILLS: usize = 5;
const KILLS_AFTER_COMMIT: usize = 5;

const KILL_INTERVAL: Duration = Duration::from_millis(5);

const TIMEOUT: Duration = Duration::from_secs(10);

/// Makes each commit wait for a standby that does not exist. The commit has then taken effect, but its
/// backend has not replied.
const HOLD_REPLIES: &str = "alter system set synchronous_standby_names = 'absent'";
const RELEASE_REPLIES: &str = "alter system reset synchronous_standby_names";
const RELOAD: &str = "select pg_reload_conf()";

const EXECUTES: &str = "state <> 'idle'";
const HAS_COMMITTED: &str = "wait_event = 'SyncRep'";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Uuid)]
    id: uuid::Uuid,
}

/// An organization with an `on_join` template.
#[derive(Clone)]
struct Tenant {
    greenroom: Greenroom,
    caller: Caller,
    template: SessionTemplateId,
}

/// The answers that a caller got.
#[derive(Default)]
struct Record {
    /// Sessions of successful starts.
    started: Vec<SessionId>,
    /// Number of starts without a key that failed.
    failed: usize,
    /// Number of starts with a key whose first attempts failed although the session was written.
    found: usize,
}

impl Tenant {
    async fn new(greenroom: &Greenroom) -> Self {
        let caller = Caller::backend(organization());
        let template = on_join_template(greenroom, &caller).await;
        Self { greenroom: greenroom.clone(), caller, template }
    }

    /// `None` means that the database failed.
    async fn start(&self, key: Option<&str>) -> Option<StartedSession> {
        let mut request = StartRequest::new(self.template);
        request.idempotency_key = key.map(|key| IdempotencyKey::try_from(key.to_owned()).unwrap());
        match self.greenroom.start(&self.caller, request).await {
            Ok(started) => Some(started),
            Err(Error::Store(_) | Error::Overloaded) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Starts sessions until `stop`, alternately with and without a key.
    async fn start_until(self, caller: usize, stop: Arc<AtomicBool>) -> Record {
        let mut record = Record::default();
        for number in 0.. {
            if AtomicBool::load(&stop, Ordering::Relaxed) {
                break;
            }
            if number % 2 == 0 {
                match self.start(None).await {
                    Some(started) => record.started.push(started.session.id),
                    None => record.failed += 1,
                }
            } else {
                self.start_with_key(&format!("{caller}-{number}"), &mut record).await;
            }
        }
        record
    }

    /// Repeats a start until it succeeds, and once more.
    async fn start_with_key(&self, key: &str, record: &mut Record) {
        let deadline = Instant::now() + TIMEOUT;
        let mut attempts = 0;
        let first = loop {
            if let Some(started) = self.start(Some(key)).await {
                break started;
            }
            attempts += 1;
            assert!(Instant::now() < deadline, "{key} failed {attempts} times");
        };
        assert!(!first.replayed || attempts > 0, "{key} was a replay at once");
        record.found += usize::from(first.replayed);
        record.started.push(first.session.id);
        if let Some(again) = self.start(Some(key)).await {
            assert_eq!((again.session.id, again.replayed), (first.session.id, true), "{key}");
        }
    }
}

/// Terminates one backend of this database for which the condition is true. Returns their number.
async fn kill(db: &mut AsyncPgConnection, condition: &str) -> usize {
    let kill = format!(
        "select pg_terminate_backend(pid) from (
           select pid from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid() and {condition}
           order by random() limit 1) victim"
    );
    sql_query(kill).execute(db).await.unwrap()
}

/// Terminates backends until the end of the load: at random, and after their commits.
async fn kill_backends(db: &mut AsyncPgConnection, stop: &AtomicBool) {
    db.batch_execute("set synchronous_commit = local").await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < DURATION {
        for _ in 0..RANDOM_KILLS {
            kill(db, EXECUTES).await;
            sleep_for(KILL_INTERVAL).await.unwrap();
        }
        for statement in [HOLD_REPLIES, RELOAD] {
            db.batch_execute(statement).await.unwrap();
        }
        let mut killed = 0;
        wait_until("commits to wait", TIMEOUT, async || {
            killed += kill(db, HAS_COMMITTED).await;
            Ok((killed >= KILLS_AFTER_COMMIT).then_some(()))
        })
        .await
        .unwrap();
        for statement in [RELEASE_REPLIES, RELOAD] {
            db.batch_execute(statement).await.unwrap();
        }
    }
    stop.store(true, Ordering::Relaxed);
}

/// Runs the callers while backends are terminated, and returns their answers together.
async fn run_callers(tenants: &[Tenant; 2], db: &mut AsyncPgConnection) -> Record {
    let stop = Arc::<AtomicBool>::default();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let tenant = tenants[caller % tenants.len()].clone();
        callers.spawn(tenant.start_until(caller, stop.clone()));
    }
    kill_backends(db, &stop).await;
    let mut total = Record::default();
    for record in callers.join_all().await {
        total.started.extend(record.started);
        total.failed += record.failed;
        total.found += record.found;
    }
    total
}

async fn ids(db: &mut AsyncPgConnection, condition: &str) -> BTreeSet<SessionId> {
    let query = format!("select id from sessions where {condition}");
    let rows: Vec<Row> = sql_query(query).load(db).await.unwrap();
    rows.into_iter().map(|row| SessionId(row.id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_true_while_backends_are_terminated() {
    let cluster = Cluster::temporary_durable().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let tenants = [Tenant::new(&greenroom).await, Tenant::new(&greenroom).await];
    let limited = tenants[1].caller.organization_id;
    let limit = SessionLimit::AtMost(SessionCount::constant::<1_000_000>());
    greenroom.admin().set_session_limit(limited, limit).await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let Record { started, failed, found } = run_callers(&tenants, &mut db).await;
    let expected: BTreeSet<_> = started.iter().copied().collect();
    assert_eq!(expected.len(), started.len(), "two starts returned the same session");
    // The sessions of starts that failed without a key are ended in the background.
    wait_until("the open sessions to be those that were returned", TIMEOUT, async || {
        Ok((ids(&mut db, "status = 'pending'").await == expected).then_some(()))
    })
    .await
    .unwrap();
    let ended = ids(&mut db, "status <> 'pending'").await.len();
    println!(
        "{} started, {failed} failed without a key, {ended} of these were written",
        started.len()
    );
    println!("{found} were written although the first attempt with their key failed");
    assert!(0 < ended && ended <= failed, "{ended} sessions of {failed} failed starts");
    assert!(
        found > 0,
        "no backend was terminated between the commit and the reply to a start with a key"
    );
    let limits = greenroom.limits(&tenants[1].caller).await.unwrap();
    let stored =
        ids(&mut db, &format!("organization_id = '{limited}' and status = 'pending'")).await;
    assert_eq!(usize::try_from(limits.active_sessions).unwrap(), stored.len());
}
