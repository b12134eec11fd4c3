//! Reads of single sessions that arrive together share a statement, and each gets its own outcome.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::SessionId;
use greenroom_core::{Caller, Error, Greenroom, MemoryRooms, Session, StartRequest, StoreError};
use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::wait_until;
use tokio::task::JoinHandle;

use crate::{on_join_template, organization, service};

/// Number of concurrent reads, the maximum of one statement.
const READS: usize = 64;

const TIMEOUT: Duration = Duration::from_secs(10);

type Outcome = Result<Option<Session>, Error>;

/// A service with three sessions of one organization, and a connection that checks no values.
struct Setup {
    greenroom: Greenroom,
    caller: Caller,
    ids: [SessionId; 3],
    db: AsyncPgConnection,
}

impl Setup {
    async fn new(database: &Database) -> Self {
        let greenroom = service(database, &Arc::new(MemoryRooms::default())).build().unwrap();
        let caller = Caller::backend(organization());
        let template = on_join_template(&greenroom, &caller).await;
        let mut ids = [SessionId(uuid::Uuid::nil()); 3];
        for id in &mut ids {
            let started = greenroom.start(&caller, StartRequest::new(template)).await.unwrap();
            *id = started.session.id;
        }
        let db = AsyncPgConnection::establish(database.url()).await.unwrap();
        Self { greenroom, caller, ids, db }
    }

    fn read(&self, caller: &Caller, id: SessionId) -> JoinHandle<Outcome> {
        let (greenroom, caller) = (self.greenroom.clone(), caller.clone());
        tokio::spawn(async move { greenroom.session(&caller, id).await })
    }

    /// Blocks reads until [`Self::unblock`].
    async fn block(&mut self) {
        self.db.batch_execute("begin; lock table sessions").await.unwrap();
    }

    /// Waits until two statements wait for the lock: the other reads are then queued.
    async fn wait_until_blocked(&mut self) {
        let waiting = "savepoint before; do $$ begin assert (select count(*) from pg_locks
            where relation = 'sessions'::regclass and not granted
              and database = (select oid from pg_database where datname = current_database())) = 2; end $$";
        wait_until("two statements to wait", TIMEOUT, async || {
            let found = self.db.batch_execute(waiting).await;
            self.db.batch_execute("rollback to before").await?;
            Ok(found.ok())
        })
        .await
        .unwrap();
    }

    async fn unblock(&mut self) {
        self.db.batch_execute("commit").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_share_statements_and_each_gets_its_own_session() {
    let cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    // PostgreSQL logs the statements of connections that are opened from now on.
    let log_all = format!("alter database {} set log_min_duration_statement = 0", database.name());
    db.batch_execute(&log_all).await.unwrap();
    let mut setup = Setup::new(&database).await;
    let [first, second, undecodable] = setup.ids;
    let edit = format!("update sessions set metadata = '[7]' where id = '{undecodable}'");
    db.batch_execute(&edit).await.unwrap();

    let (owner, other) = (setup.caller.clone(), Caller::backend(organization()));
    let absent = SessionId(uuid::Uuid::nil());
    let kinds = [
        (&owner, first),
        (&other, first),
        (&owner, second),
        (&owner, undecodable),
        (&other, undecodable),
        (&owner, absent),
    ];
    setup.block().await;
    let kinds = kinds.iter().cycle().take(READS);
    let reads: Vec<_> = kinds.map(|&(caller, id)| (caller, id, setup.read(caller, id))).collect();
    setup.wait_until_blocked().await;
    setup.unblock().await;
    for (caller, id, read) in reads {
        let outcome = read.await.unwrap();
        if caller == &other || id == absent {
            assert_eq!(outcome.unwrap(), None);
        } else if id == undecodable {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Store(StoreError::Undecodable(_))), "{error:?}");
        } else {
            let session = outcome.unwrap().unwrap();
            assert_eq!((session.organization_id, session.id), (owner.organization_id, id));
        }
    }
    let log = cluster.output();
    let read = "from unnest($1, $2) with ordinality as listed (organization_id, id, number)";
    let is_read = |line: &&str| line.contains("  execute ") && line.contains(read);
    let statements = log.lines().filter(is_read).count();
    assert!((2..READS / 4).contains(&statements), "{statements} statements:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_caller_does_not_fail_other_reads() {
    let database = Database::fresh().await.unwrap();
    let mut setup = Setup::new(&database).await;
    setup.block().await;
    let caller = setup.caller.clone();
    let mut reads: Vec<_> = (0..READS).map(|_| setup.read(&caller, setup.ids[0])).collect();
    setup.wait_until_blocked().await;
    let kept = reads.split_off(READS / 2);
    reads.iter().for_each(JoinHandle::abort);
    setup.unblock().await;
    for read in kept {
        assert!(read.await.unwrap().unwrap().is_some());
    }
}
