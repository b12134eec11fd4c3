//! The keeper while LiveKit hangs, refuses every call, or has lost a node. With a scripted API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::QueryableByName;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_core::domain::{AgentName, SessionTemplateId};
use greenroom_core::{Caller, Greenroom, StartRequest};
use greenroom_testkit::livekit::{ScriptedApi, Trouble};
use greenroom_testkit::pg::Database;
use greenroom_testkit::{sleep_for, wait_until};
use tokio::sync::Notify;

use crate::{config_with_livekit, organization, template};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sessions in progress when the trouble begins: more than the keeper has calls and claims.
const SESSIONS: usize = 600;

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
    livekit: ScriptedApi,
    greenroom: Greenroom,
    caller: Caller,
    template: SessionTemplateId,
}

impl Scene {
    /// Starts `count` sessions with rooms. Each has its user and its agent in the room.
    async fn new(count: usize) -> Self {
        let database = Database::fresh().await.unwrap();
        let livekit = ScriptedApi::start("ann", "agent").await.unwrap();
        let mut config = config_with_livekit(&database, livekit.url());
        config.reconcile_every = 3.try_into().unwrap();
        let greenroom = Greenroom::builder(config).build().unwrap();
        let caller = Caller::backend(organization());
        let db = AsyncPgConnection::establish(database.url()).await.unwrap();
        let mut settings = template("Trouble");
        settings.agent_name = Some(AgentName::try_from("agent".to_owned()).unwrap());
        let template = greenroom.create_template(&caller, settings).await.unwrap().id;
        let mut scene = Self { _database: database, db, livekit, greenroom, caller, template };
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

    /// Starts sessions whose user joins at once, and makes them due.
    async fn start_due(&mut self, count: usize) {
        self.start(count).await;
        self.run(
            "update sessions set participant_identity = 'ann', next_check_at = now()
             where status = 'pending'",
        )
        .await;
    }

    async fn run(&mut self, sql: &str) {
        self.db.batch_execute(sql).await.unwrap();
    }

    async fn number(&mut self, sql: &str) -> i64 {
        let sql = format!("select ({sql})::bigint as number");
        sql_query(sql).get_result::<Number>(&mut self.db).await.unwrap().number
    }

    /// Returns the rooms of the sessions in progress.
    async fn active_rooms(&mut self) -> Vec<String> {
        let sql = "select room_name as name from sessions where status = 'active'";
        let names: Vec<Name> = sql_query(sql).load(&mut self.db).await.unwrap();
        names.into_iter().map(|row| row.name).collect()
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
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let keeper = tokio::spawn(async move { greenroom.run_keeper(stopped.notified()).await });
        let result = act(self).await;
        // The next keeper of this database would have to wait for the lease of an aborted one.
        stop.notify_one();
        keeper.await.unwrap();
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
            scene.livekit.set_dead_rooms(rooms);
        }
        scene.run("update sessions set next_check_at = now() where status = 'active'").await;
        let took = scene
            .with_keeper(async |scene| {
                // The checks of the sessions in progress have begun.
                sleep_for(Duration::from_secs(1)).await.unwrap();
                scene.start_due(20).await;
                scene.time_until_none("all agents to be seen", WAITING).await
            })
            .await;
        assert!(took < Duration::from_secs(2), "{took:?} with dead rooms: {dead}");
    }
}

/// A start that recorded neither its room nor its failure, as after a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_is_not_failed_while_its_listed_room_cannot_be_observed() {
    let mut scene = Scene::new(0).await;
    scene.start(1).await;
    scene
        .run(
            "update sessions set room_created_at = null, created_at = now() - interval '1 minute',
               next_check_at = now()",
        )
        .await;
    scene.livekit.set_trouble(Trouble::OnlyListsRooms);
    scene
        .with_keeper(async |scene| {
            let unrecorded = "select count(*) from sessions where room_created_at is null";
            scene.time_until_none("the room to be recorded", unrecorded).await;
        })
        .await;
    assert_eq!(scene.number("select count(*) from sessions where status <> 'pending'").await, 0);
}

/// `ListDispatch` takes three seconds for a dead node's room, and few such calls run at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_waits_for_its_list_of_dispatches_is_not_written() {
    let mut scene = Scene::new(200).await;
    let rooms = scene.active_rooms().await;
    scene.livekit.set_dead_rooms(rooms);
    scene
        .run(
            "update sessions set next_check_at = now(), agent_status = 'dispatched',
               agent_identity = null;
             create table before as select id, revision from sessions",
        )
        .await;
    scene
        .with_keeper(async |scene| {
            wait_until("the sessions to be listed again", TIMEOUT, async || {
                Ok((scene.livekit.lists().len() >= 2).then_some(()))
            })
            .await
            .unwrap();
            let waiting = "select count(*) from sessions where room_missing_since is null";
            assert!(scene.number(waiting).await > 100);
            let written = "select count(*) from sessions join before using (id)
               where room_missing_since is null and sessions.revision <> before.revision";
            assert_eq!(scene.number(written).await, 0);
        })
        .await;
}

/// A list of many heavy rooms takes longer than a call may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_rooms_delay_only_themselves() {
    let mut scene = Scene::new(200).await;
    scene.livekit.set_max_list(100);
    scene.run("update sessions set next_check_at = now()").await;
    let took = scene
        .with_keeper(async |scene| {
            let heavy = "select count(*) from sessions where next_check_at <= now()";
            let heavy_took = scene.time_until_none("heavy rooms to be observed", heavy).await;
            scene.start_due(20).await;
            heavy_took.max(scene.time_until_none("all agents to be seen", WAITING).await)
        })
        .await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    let sizes: Vec<_> = scene.livekit.lists().into_iter().map(|(_, rooms)| rooms).collect();
    let rooms = sizes.iter().copied().find(|rooms| *rooms > 100).unwrap();
    assert!(sizes.contains(&1), "a small call shows that LiveKit responds: {sizes:?}");
    let halves = sizes.iter().filter(|size| [rooms / 2, rooms - rooms / 2].contains(size));
    assert!(halves.count() >= 2, "the list is halved: {sizes:?}");
}

/// LiveKit gives a room that is opened again the same name and the same sid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_of_a_dead_node_is_observed_as_soon_as_its_user_is_back() {
    let mut scene = Scene::new(1).await;
    let rooms = scene.active_rooms().await;
    scene.livekit.set_dead_rooms(rooms);
    scene.run("update sessions set next_check_at = now()").await;
    let took = scene
        .with_keeper(async |scene| {
            let not_missing = "select count(*) from sessions where room_missing_since is null";
            scene.time_until_none("the dead node to be found", not_missing).await;
            scene.livekit.set_dead_rooms([]);
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
    scene.livekit.set_dead_rooms(rooms);
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
    scene.livekit.set_trouble(Trouble::Hangs);
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
    scene.livekit.set_trouble(Trouble::Refuses);
    let recovered_at = scene
        .with_keeper(async |scene| {
            sleep_for(Duration::from_secs(1)).await.unwrap();
            let before = scene.number(revisions).await;
            sleep_for(Duration::from_secs(4)).await.unwrap();
            let written = scene.number(revisions).await - before;
            assert!(written < 512, "{written} row writes in four seconds of an outage");
            scene.livekit.set_trouble(Trouble::None);
            let recovered_at = Instant::now();
            let overdue = "select count(*) from sessions
               where next_check_at <= now() - interval '1 second'";
            scene.time_until_none("all sessions to be checked again", overdue).await;
            recovered_at
        })
        .await;
    let lists = scene.livekit.lists();
    let window = Duration::from_millis(500);
    let listed_from = |begin: Instant| -> usize {
        let within = lists.iter().filter(|(at, _)| (begin..begin + window).contains(at));
        within.map(|(_, rooms)| rooms).sum()
    };
    let after = lists.iter().map(|(at, _)| *at).filter(|at| *at > recovered_at);
    let most = after.map(listed_from).max().unwrap();
    assert!(most <= 1_024, "{most} rooms within {window:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_is_announced_again_until_it_was_sent() {
    let mut scene = Scene::new(1).await;
    scene.livekit.set_refuses_messages(true);
    scene
        .run("update sessions set end_by = now() + interval '20 seconds', next_check_at = now()")
        .await;
    scene
        .with_keeper(async |scene| {
            sleep_for(Duration::from_secs(3)).await.unwrap();
            scene.livekit.set_refuses_messages(false);
            let unannounced = "select count(*) from sessions where ending_notified_at is null";
            scene.time_until_none("the end to be announced", unannounced).await;
        })
        .await;
    assert_eq!(scene.livekit.messages(), 1);
}
