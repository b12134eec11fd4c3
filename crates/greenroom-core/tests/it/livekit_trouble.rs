//! The keeper while LiveKit hangs, refuses every call, or has lost a node. With scripted rooms.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use diesel::QueryableByName;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_core::domain::lifecycle::{Dispatch, Participant, ParticipantKind};
use greenroom_core::domain::{AgentName, RoomName, SessionTemplateId};
use greenroom_core::{
    AgentDispatch, Caller, Greenroom, LiveKitError, MemoryRooms, RoomList, RoomSettings, Rooms,
    StartRequest,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::{sleep_for, wait_until};
use parking_lot::Mutex;

use crate::{config, organization, template};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sessions in progress when the trouble begins: more than the keeper has calls and claims.
const SESSIONS: usize = 600;

/// How long LiveKit takes to report that a room's node is gone.
const NO_NODE_DELAY: Duration = Duration::from_secs(3);

/// How long a call hangs until the client gives up.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Every call times out.
    Hangs,
    /// Every call is refused at once.
    Refuses,
}

/// Rooms in memory, with a user and an agent in each.
struct ScriptedRooms {
    rooms: MemoryRooms,
    trouble: Mutex<Trouble>,
    /// Rooms whose node is gone.
    dead: Mutex<HashSet<RoomName>>,
    /// When each list of rooms was requested, and of how many rooms.
    lists: Mutex<Vec<(Instant, usize)>>,
    announcements: Mutex<u32>,
    refuses_announcements: Mutex<bool>,
}

impl ScriptedRooms {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            rooms: MemoryRooms::default(),
            trouble: Mutex::new(Trouble::None),
            dead: Mutex::default(),
            lists: Mutex::default(),
            announcements: Mutex::default(),
            refuses_announcements: Mutex::default(),
        })
    }

    fn set(&self, trouble: Trouble) {
        *self.trouble.lock() = trouble;
    }

    async fn respond(&self) -> Result<(), LiveKitError> {
        let trouble = *self.trouble.lock();
        match trouble {
            Trouble::None => Ok(()),
            Trouble::Hangs => {
                tokio::time::sleep(CALL_TIMEOUT).await;
                Err(LiveKitError::Timeout)
            }
            Trouble::Refuses => Err(LiveKitError::Refused("the script refuses".to_owned())),
        }
    }
}

#[async_trait]
impl Rooms for ScriptedRooms {
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        self.respond().await?;
        self.rooms.create(name, settings).await
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.respond().await
    }

    async fn list(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError> {
        self.lists.lock().push((Instant::now(), names.len()));
        self.respond().await?;
        self.rooms.list(names).await
    }

    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        self.respond().await?;
        let participant = |identity: &str, kind| Participant {
            identity: identity.to_owned(),
            sid: format!("PA_{identity}_{name}"),
            kind,
            is_active: true,
        };
        Ok(vec![
            participant("ann", ParticipantKind::User),
            participant("agent", ParticipantKind::Agent),
        ])
    }

    async fn dispatches(
        &self,
        name: &RoomName,
        _: Option<&AgentName>,
    ) -> Result<Vec<Dispatch>, LiveKitError> {
        self.respond().await?;
        if self.dead.lock().contains(name) {
            tokio::time::sleep(NO_NODE_DELAY).await;
            return Err(LiveKitError::NoNode("no response from servers".to_owned()));
        }
        Ok(Vec::new())
    }

    async fn dispatch(&self, _: &RoomName, _: &AgentDispatch) -> Result<(), LiveKitError> {
        self.respond().await
    }

    async fn delete_dispatch(&self, _: &RoomName, _: &str) -> Result<(), LiveKitError> {
        self.respond().await
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        self.respond().await?;
        self.rooms.delete(name).await
    }

    async fn send(&self, _: &RoomName, _: &str, _: Vec<u8>) -> Result<(), LiveKitError> {
        self.respond().await?;
        if *self.refuses_announcements.lock() {
            return Err(LiveKitError::Timeout);
        }
        *self.announcements.lock() += 1;
        Ok(())
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// A service with many sessions in progress.
struct Scene {
    _database: Database,
    db: AsyncPgConnection,
    rooms: Arc<ScriptedRooms>,
    greenroom: Greenroom,
    caller: Caller,
    template: SessionTemplateId,
}

impl Scene {
    /// Starts `count` sessions with rooms. Each has its user and its agent in the room.
    async fn new(count: usize) -> Self {
        let database = Database::fresh().await.unwrap();
        let rooms = ScriptedRooms::new();
        let mut config = config(&database);
        config.reconcile_every = 3.try_into().unwrap();
        let greenroom = Greenroom::builder(config).rooms(rooms.clone()).build().unwrap();
        let caller = Caller::backend(organization());
        let db = AsyncPgConnection::establish(database.url()).await.unwrap();
        let mut settings = template("Trouble");
        settings.agent_name = Some(AgentName::try_from("agent".to_owned()).unwrap());
        let template = greenroom.create_template(&caller, settings).await.unwrap().id;
        let mut scene = Self { _database: database, db, rooms, greenroom, caller, template };
        scene.start(count).await;
        scene
            .run(
                "update sessions set status = 'active', started_at = now(), user_joined_at = now(),
                   end_by = now() + interval '1 hour', agent_status = 'ready',
                   agent_identity = 'agent', participant_identity = 'ann'",
            )
            .await;
        scene
    }

    /// Starts sessions whose agent is on its way.
    async fn start(&self, count: usize) {
        for _ in 0..count {
            self.greenroom.start(&self.caller, StartRequest::new(self.template)).await.unwrap();
        }
    }

    async fn run(&mut self, sql: &str) {
        self.db.batch_execute(sql).await.unwrap();
    }

    async fn number(&mut self, sql: &str) -> i64 {
        let sql = format!("select ({sql})::bigint as number");
        sql_query(sql).get_result::<Number>(&mut self.db).await.unwrap().number
    }

    /// Returns the rooms of the sessions in progress.
    async fn active_rooms(&mut self) -> Vec<RoomName> {
        let sql = "select room_name as name from sessions where status = 'active'";
        let names: Vec<Name> = sql_query(sql).load(&mut self.db).await.unwrap();
        names.into_iter().map(|row| RoomName::try_from(row.name).unwrap()).collect()
    }

    /// Waits until a query returns zero, and returns how long that took.
    async fn time_until_none(&mut self, what: &str, sql: &str) -> Duration {
        let begun = Instant::now();
        let scene = tokio::sync::Mutex::new(self);
        wait_until(what, TIMEOUT, async || {
            Ok((scene.lock().await.number(sql).await == 0).then_some(()))
        })
        .await
        .unwrap();
        begun.elapsed()
    }

    /// Runs `act` beside the keeper.
    async fn with_keeper<T>(&mut self, act: impl AsyncFnOnce(&mut Self) -> T) -> T {
        let greenroom = self.greenroom.clone();
        let keeper =
            tokio::spawn(async move { greenroom.run_keeper(std::future::pending()).await });
        let result = act(self).await;
        keeper.abort();
        result
    }
}

const WAITING: &str = "select count(*) from sessions where agent_status = 'dispatched'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_node_does_not_delay_agents_in_healthy_rooms() {
    let mut scene = Scene::new(SESSIONS).await;
    for dead in [false, true] {
        if dead {
            let rooms = scene.active_rooms().await;
            assert!(rooms.len() >= SESSIONS);
            scene.rooms.dead.lock().extend(rooms);
        }
        scene.run("update sessions set next_check_at = now() where status = 'active'").await;
        let took = scene
            .with_keeper(async |scene| {
                // The checks of the sessions in progress have begun.
                sleep_for(Duration::from_secs(1)).await.unwrap();
                scene.start(20).await;
                scene
                    .run(
                        "update sessions set participant_identity = 'ann' where status = 'pending'",
                    )
                    .await;
                scene
                    .run("update sessions set next_check_at = now() where status = 'pending'")
                    .await;
                scene.time_until_none("all agents to be seen", WAITING).await
            })
            .await;
        assert!(took < Duration::from_secs(2), "{took:?} with dead rooms: {dead}");
    }
}

/// LiveKit gives a room that is opened again the same name and the same sid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_of_a_dead_node_is_observed_as_soon_as_its_user_is_back() {
    let mut scene = Scene::new(1).await;
    let rooms = scene.active_rooms().await;
    scene.rooms.dead.lock().extend(rooms.clone());
    scene.run("update sessions set next_check_at = now()").await;
    let took = scene
        .with_keeper(async |scene| {
            let not_missing = "select count(*) from sessions where room_missing_since is null";
            scene.time_until_none("the dead node to be found", not_missing).await;
            scene.rooms.dead.lock().clear();
            scene.run("update sessions set user_joined_at = now(), next_check_at = now()").await;
            let missing = "select count(*) from sessions where room_missing_since is not null";
            scene.time_until_none("the room to be observed", missing).await
        })
        .await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A maximum duration that passes while the node of the room is known to be gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_node_delays_no_deadline() {
    let mut scene = Scene::new(SESSIONS).await;
    let rooms = scene.active_rooms().await;
    scene.rooms.dead.lock().extend(rooms);
    scene.run("update sessions set next_check_at = now()").await;
    let late =
        "select coalesce(max(extract(milliseconds from ended_at - end_by)), 0) from sessions";
    let late = scene
        .with_keeper(async |scene| {
            sleep_for(Duration::from_secs(5)).await.unwrap();
            scene
                .run(
                    "update sessions set revision = revision + 1, end_by = due.at,
                       next_check_at = least(next_check_at, due.at)
                     from (select id, now() + random() * interval '5 seconds' as at from sessions) due
                     where sessions.id = due.id",
                )
                .await;
            let open = "select count(*) from sessions where status = 'active'";
            scene.time_until_none("all sessions to end", open).await;
            scene.number(late).await
        })
        .await;
    assert!((0..2_000).contains(&late), "{late} ms late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_livekit_delays_no_deadline() {
    let mut scene = Scene::new(SESSIONS).await;
    scene.rooms.set(Trouble::Hangs);
    scene.run("update sessions set next_check_at = now()").await;
    let late =
        "select coalesce(max(extract(milliseconds from ended_at - end_by)), 0) from sessions";
    let late = scene
        .with_keeper(async |scene| {
            // Checks of all sessions are in progress when the deadlines pass.
            scene.run("update sessions set end_by = now() + random() * interval '5 seconds'").await;
            let open = "select count(*) from sessions where status = 'active'";
            scene.time_until_none("all sessions to end", open).await;
            scene.number(late).await
        })
        .await;
    assert!((0..2_000).contains(&late), "{late} ms late");
    let unexpected = "select count(*) from sessions where end_reason <> 'max_duration'";
    assert_eq!(scene.number(unexpected).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusing_livekit_causes_no_writes_and_no_burst() {
    let mut scene = Scene::new(3 * SESSIONS).await;
    let revisions = "select sum(revision) from sessions";
    scene.run("update sessions set next_check_at = now()").await;
    scene.rooms.set(Trouble::Refuses);
    let recovered_at = scene
        .with_keeper(async |scene| {
            sleep_for(Duration::from_secs(1)).await.unwrap();
            let before = scene.number(revisions).await;
            sleep_for(Duration::from_secs(4)).await.unwrap();
            let written = scene.number(revisions).await - before;
            assert!(written < 512, "{written} row writes in four seconds of an outage");
            scene.rooms.set(Trouble::None);
            let recovered_at = Instant::now();
            let overdue = "select count(*) from sessions
               where next_check_at <= now() - interval '1 second'";
            scene.time_until_none("all sessions to be checked again", overdue).await;
            recovered_at
        })
        .await;
    let lists = scene.rooms.lists.lock();
    let window = Duration::from_millis(500);
    let listed_from = |begin: Instant| -> usize {
        let within = lists.iter().filter(|(at, _)| (begin..begin + window).contains(at));
        within.map(|(_, rooms)| rooms).sum()
    };
    let after = lists.iter().map(|(at, _)| *at).filter(|at| *at > recovered_at);
    let most = after.map(listed_from).max().unwrap();
    assert!(most <= 800, "{most} rooms within {window:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_is_announced_again_until_it_was_sent() {
    let mut scene = Scene::new(1).await;
    *scene.rooms.refuses_announcements.lock() = true;
    scene
        .run("update sessions set end_by = now() + interval '20 seconds', next_check_at = now()")
        .await;
    let rooms = scene.rooms.clone();
    scene
        .with_keeper(async |scene| {
            sleep_for(Duration::from_secs(3)).await.unwrap();
            *rooms.refuses_announcements.lock() = false;
            let unannounced = "select count(*) from sessions where ending_notified_at is null";
            scene.time_until_none("the end to be announced", unannounced).await;
        })
        .await;
    assert_eq!(*rooms.announcements.lock(), 1);
}
