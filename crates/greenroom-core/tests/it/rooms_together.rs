//! Rooms that are opened together are recorded by one statement, and each start gets its own outcome.

use std::time::Duration;

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_core::domain::{RoomName, SessionId};
use greenroom_core::{Caller, Error, Greenroom, StartRequest, StartedSession};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::gated_rooms::{GatedCall, GatedRooms};
use crate::{config, organization, template};

const STARTS: usize = 16;

const TIMEOUT: Duration = Duration::from_secs(10);

type Outcome = Result<StartedSession, Error>;

/// Starts whose rooms LiveKit has not opened yet.
struct Starts {
    tasks: Vec<JoinHandle<Outcome>>,
    calls: Vec<GatedCall>,
    greenroom: Greenroom,
    caller: Caller,
    db: AsyncPgConnection,
    database: Database,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    id: uuid::Uuid,
}

impl Starts {
    async fn begin() -> Self {
        let database = Database::fresh().await.unwrap();
        let (rooms, mut calls) = GatedRooms::new();
        let greenroom = Greenroom::builder(config(&database)).rooms(rooms).build().unwrap();
        let caller = Caller::backend(organization());
        let template = greenroom.create_template(&caller, template("Rooms")).await.unwrap().id;
        let start = || {
            let (greenroom, caller) = (greenroom.clone(), caller.clone());
            tokio::spawn(async move { greenroom.start(&caller, StartRequest::new(template)).await })
        };
        let tasks = (0..STARTS).map(|_| start()).collect();
        let calls = receive(&mut calls).await;
        let db = AsyncPgConnection::establish(database.url()).await.unwrap();
        Self { tasks, calls, greenroom, caller, db, database }
    }

    /// Lets LiveKit open all rooms while no statement can write a session, and returns the outcomes.
    async fn open_together(&mut self) -> Vec<Outcome> {
        self.db.batch_execute("begin; lock table sessions in share mode").await.unwrap();
        for call in self.calls.drain(..) {
            call.open();
        }
        let waiting = "select count(*) from pg_locks where relation = 'sessions'::regclass
            and not granted and database = (select oid from pg_database where datname = current_database())";
        wait_until("two statements to wait", TIMEOUT, async || {
            let waiting: Count = sql_query(waiting).get_result(&mut self.db).await?;
            Ok((waiting.count == 2).then_some(()))
        })
        .await
        .unwrap();
        self.db.batch_execute("commit").await.unwrap();
        let mut outcomes = Vec::new();
        for start in self.tasks.drain(..) {
            outcomes.push(start.await.unwrap());
        }
        outcomes
    }

    fn room(&self, number: usize) -> RoomName {
        self.calls[number].room.clone()
    }

    async fn count(&mut self, query: &str) -> i64 {
        let count: Count = sql_query(query).get_result(&mut self.db).await.unwrap();
        count.count
    }
}

async fn receive(calls: &mut UnboundedReceiver<GatedCall>) -> Vec<GatedCall> {
    let mut received = Vec::new();
    while received.len() < STARTS {
        received.push(calls.recv().await.unwrap());
    }
    received
}

/// The number of sessions with a recorded room.
const RECORDED: &str = "select count(*) from sessions where room_created_at is not null";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_are_opened_together_share_statements() {
    let mut starts = Starts::begin().await;
    let outcomes = starts.open_together().await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(starts.count(RECORDED).await, 16);
    let statements = "select count(distinct xmin::text) from sessions";
    let statements = starts.count(statements).await;
    assert!(statements <= 8, "{statements} statements");
    let events = "select count(*) from session_events where event = 'room_created'";
    assert_eq!(starts.count(events).await, 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_ended_meanwhile_is_refused_alone() {
    let mut starts = Starts::begin().await;
    let room = starts.room(3);
    let find = format!("select id from sessions where room_name = '{room}'");
    let Id { id } = sql_query(find).get_result(&mut starts.db).await.unwrap();
    let id = SessionId(id);
    starts.greenroom.end(&starts.caller, id).await.unwrap().unwrap();
    let mut refused = 0;
    for outcome in starts.open_together().await {
        match outcome {
            Ok(started) => assert_ne!(started.session.id, id),
            Err(Error::SessionOver(over)) => {
                assert_eq!(over, id);
                refused += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(refused, 1);
    let late = "select count(*) from session_events join sessions on id = session_id
        where event = 'room_created' and status = 'ended'";
    assert_eq!(starts.count(late).await, 1, "the keeper deletes the room");
}

/// The start succeeds, because its session is committed and the keeper observes the room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_postgresql_rejects_is_unrecorded_alone() {
    let mut starts = Starts::begin().await;
    let (first, second) = (starts.room(2), starts.room(9));
    let poison = format!(
        "create function refuse() returns trigger language plpgsql as $$
           begin raise exception 'refused'; end $$;
         create trigger refuse before update on sessions for each row
           when (old.room_name in ('{first}', '{second}')) execute function refuse()"
    );
    starts.db.batch_execute(&poison).await.unwrap();
    let outcomes = starts.open_together().await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(starts.count(RECORDED).await, 14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_session_delays_only_its_own_start() {
    let mut starts = Starts::begin().await;
    let room = starts.room(5);
    let mut other = AsyncPgConnection::establish(starts.database.url()).await.unwrap();
    let lock =
        format!("begin; update sessions set revision = revision + 1 where room_name = '{room}'");
    other.batch_execute(&lock).await.unwrap();
    for call in starts.calls.drain(..) {
        call.open();
    }
    wait_until("the other starts", TIMEOUT, async || {
        let finished = starts.tasks.iter().filter(|start| start.is_finished()).count();
        Ok((finished == STARTS - 1).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(starts.count(RECORDED).await, 15);
    other.batch_execute("commit").await.unwrap();
    for start in starts.tasks.drain(..) {
        start.await.unwrap().unwrap();
    }
    assert_eq!(starts.count(RECORDED).await, 16);
}
