//! Several processes share the sessions: each bucket of sessions is checked by one of them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel::QueryableByName;
use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_core::domain::lifecycle::Participant;
use greenroom_core::domain::{AgentName, ReconcileInterval, RoomName, lifecycle};
use greenroom_core::{
    AgentDispatch, Caller, Config, Greenroom, LiveKitError, MemoryRooms, RoomList, RoomSettings,
    Rooms, Session, StartRequest,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::{config, organization, template};

pub const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// A database with open sessions that have a room and wait for their users.
pub struct Scene {
    pub database: Database,
    db: AsyncPgConnection,
    pub rooms: Arc<MemoryRooms>,
    caller: Caller,
    pub sessions: Vec<Session>,
}

impl Scene {
    pub async fn with_sessions(count: usize) -> Self {
        let database = Database::fresh().await.unwrap();
        let db = AsyncPgConnection::establish(database.url()).await.unwrap();
        let rooms = Arc::new(MemoryRooms::default());
        let caller = Caller::backend(organization());
        let mut scene = Self { database, db, rooms, caller, sessions: Vec::new() };
        let greenroom = scene.process();
        let id = greenroom.create_template(&scene.caller, template("T")).await.unwrap().id;
        for _ in 0..count {
            let started = greenroom.start(&scene.caller, StartRequest::new(id)).await.unwrap();
            scene.sessions.push(started.session);
        }
        // The first check, six seconds after the start, is over.
        scene.run_sql("update sessions set next_check_at = join_by, revision = revision + 1").await;
        scene
    }

    /// Another process on the same database and LiveKit, which checks every session each second.
    pub fn process(&self) -> Greenroom {
        self.process_at(self.database.url())
    }

    /// A process like [`Self::process`] that connects to the database by this URL.
    pub fn process_at(&self, database_url: &str) -> Greenroom {
        let mut config = self.config();
        config.database_url = database_url.parse().unwrap();
        Greenroom::builder(config).rooms(self.rooms.clone()).build().unwrap()
    }

    fn config(&self) -> Config {
        let mut config = config(&self.database);
        config.reconcile_every = ReconcileInterval::constant::<1>();
        config
    }

    pub async fn number(&mut self, sql: &str) -> i64 {
        let query = format!("select ({sql})::bigint as number");
        sql_query(query).get_result::<Number>(&mut self.db).await.unwrap().number
    }

    pub async fn run_sql(&mut self, sql: &str) {
        sql_query(sql).execute(&mut self.db).await.unwrap();
    }

    pub async fn wait_for(&mut self, what: &str, sql: &str, expected: i64) {
        let scene = tokio::sync::Mutex::new(self);
        wait_until(what, TIMEOUT, async || {
            Ok((scene.lock().await.number(sql).await == expected).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until each session was checked another `checks` times.
    pub async fn wait_for_checks(&self, checks: usize) {
        let before: Vec<_> =
            self.sessions.iter().map(|session| self.rooms.lists(room(session))).collect();
        wait_until("all sessions to be checked", TIMEOUT, async || {
            let mut sessions = self.sessions.iter().zip(&before);
            let all = sessions
                .all(|(session, before)| self.rooms.lists(room(session)) >= before + checks);
            Ok(all.then_some(()))
        })
        .await
        .unwrap();
    }
}

pub fn room(session: &Session) -> &RoomName {
    session.room_name.valid().unwrap()
}

/// A keeper in a task. It stops in an orderly way, or dies if it is dropped.
pub struct Keeper {
    pub stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Keeper {
    pub fn of(greenroom: Greenroom) -> Self {
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move { greenroom.run_keeper(stopped.notified()).await });
        Self { stop, task }
    }

    pub async fn stop(mut self) {
        self.stop.notify_one();
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const HOLDERS: &str = "select count(distinct replica) from keeper_buckets
     where replica in (select id from keeper_replicas)";
pub const HELD: &str = "select count(*) from keeper_buckets
     where replica in (select id from keeper_replicas where lease_until > now())";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uneventful_checks_write_nothing() {
    let mut scene = Scene::with_sessions(50).await;
    let keeper = Keeper::of(scene.process());
    scene.wait_for_checks(1).await;
    let written = "select sum(revision) from sessions";
    let before = scene.number(written).await;
    scene.wait_for_checks(3).await;
    assert_eq!(scene.number(written).await, before);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_learns_of_facts_of_other_processes() {
    let mut scene = Scene::with_sessions(5).await;
    let keeper = Keeper::of(scene.process());
    scene.wait_for("the buckets to be held", HELD, 1024).await;
    let other = scene.process();
    for session in &scene.sessions {
        other.end(&scene.caller, session.id).await.unwrap().unwrap();
        let ended = Instant::now();
        wait_until("the room to be deleted", TIMEOUT, async || {
            Ok(scene.rooms.get(room(session)).is_none().then_some(()))
        })
        .await
        .unwrap();
        assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
    }
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_the_sessions_and_take_over_from_each_other() {
    let mut scene = Scene::with_sessions(40).await;
    let first = Keeper::of(scene.process());
    scene.wait_for("one process to hold all", HELD, 1024).await;
    let second = Keeper::of(scene.process());
    scene.wait_for("two processes to share", HOLDERS, 2).await;
    scene.wait_for("all buckets to be held", HELD, 1024).await;
    let smallest =
        "select min(held) from (select count(*) as held from keeper_buckets group by replica) _";
    scene.wait_for("even shares", smallest, 512).await;
    scene.wait_for_checks(2).await;

    first.stop().await;
    let stopped = Instant::now();
    scene.wait_for("the second to hold all", HELD, 1024).await;
    scene.wait_for("the first to be gone", HOLDERS, 1).await;
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
    scene.wait_for_checks(2).await;

    // A process that dies does not release its buckets.
    drop(second);
    let third = Keeper::of(scene.process());
    let died = Instant::now();
    scene.wait_for_checks(1).await;
    assert!(died.elapsed() < Duration::from_secs(12), "{:?}", died.elapsed());
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_alone_loses_livekit_releases_its_buckets() {
    let mut scene = Scene::with_sessions(10).await;
    let unreachable = Arc::new(MemoryRooms::default());
    unreachable.set_down(true);
    let cut_off = Greenroom::builder(scene.config()).rooms(unreachable.clone()).build().unwrap();
    let cut_off = Keeper::of(cut_off);
    scene.wait_for("one process to hold all", HELD, 1024).await;
    let healthy = Keeper::of(scene.process());
    scene.wait_for("two processes to share", HOLDERS, 2).await;
    let registered = "select count(*) from keeper_replicas";
    scene.wait_for("the process without LiveKit to give up", registered, 1).await;
    scene.wait_for("the other process to hold all", HELD, 1024).await;
    scene.wait_for_checks(1).await;
    unreachable.set_down(false);
    scene.wait_for("both processes to share again", HOLDERS, 2).await;
    cut_off.stop().await;
    healthy.stop().await;
}

/// Rooms whose next list blocks the whole thread after LiveKit has responded, as SIGSTOP does to a
/// process.
struct FreezingRooms {
    rooms: Arc<MemoryRooms>,
    freeze: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

#[async_trait]
impl Rooms for FreezingRooms {
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        self.rooms.create(name, settings).await
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.rooms.check().await
    }

    async fn list(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError> {
        let list = self.rooms.list(names).await;
        let freeze = self.freeze.lock().take();
        if let Some((frozen, thawed)) = freeze {
            frozen.send(()).unwrap();
            thawed.recv().unwrap();
        }
        list
    }

    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        self.rooms.participants(name).await
    }

    async fn dispatches(
        &self,
        name: &RoomName,
        agent: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError> {
        self.rooms.dispatches(name, agent).await
    }

    async fn dispatch(&self, name: &RoomName, to: &AgentDispatch) -> Result<(), LiveKitError> {
        self.rooms.dispatch(name, to).await
    }

    async fn delete_dispatch(&self, name: &RoomName, id: &str) -> Result<(), LiveKitError> {
        self.rooms.delete_dispatch(name, id).await
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        self.rooms.delete(name).await
    }

    async fn send(&self, name: &RoomName, topic: &str, data: Vec<u8>) -> Result<(), LiveKitError> {
        self.rooms.send(name, topic, data).await
    }
}

/// A process observes that a room is missing, and stops for longer than its lease. The room is back
/// by then, and no other process has written to the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_stops_and_comes_back_does_not_act_on_its_old_observation() {
    let mut scene = Scene::with_sessions(1).await;
    let room = room(&scene.sessions[0]).clone();
    scene.rooms.delete(&room).await.unwrap();
    let ((frozen, is_frozen), (thaw, thawed)) = (channel(), channel());
    let freeze = Mutex::new(Some((frozen, thawed)));
    let rooms = Arc::new(FreezingRooms { rooms: scene.rooms.clone(), freeze });
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let process = std::thread::spawn({
        let config = scene.config();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let greenroom = Greenroom::builder(config).rooms(rooms).build().unwrap();
                greenroom.run_keeper(stopped.notified()).await;
            });
        }
    });
    tokio::task::spawn_blocking(move || is_frozen.recv_timeout(TIMEOUT)).await.unwrap().unwrap();
    scene.rooms.create(&room, &RoomSettings::closing()).await.unwrap();

    let revision = scene.number("select revision from sessions").await;
    let other = Keeper::of(scene.process());
    scene
        .wait_for("the other process to take over", "select min(epoch) from keeper_buckets", 2)
        .await;
    scene.wait_for_checks(2).await;
    thaw.send(()).unwrap();
    scene.wait_for("both processes to share", HOLDERS, 2).await;
    scene.wait_for("all buckets to be held", HELD, 1024).await;
    scene.wait_for_checks(2).await;
    let missing = "select count(*) from sessions where room_missing_since is not null";
    assert_eq!(scene.number(missing).await, 0);
    assert_eq!(scene.number("select revision from sessions").await, revision);
    other.stop().await;
    stop.notify_one();
    tokio::task::spawn_blocking(move || process.join()).await.unwrap().unwrap();
}
