//! A keeper dies in the middle of its work, and another keeper finishes it. On a real LiveKit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenroom_core::domain::lifecycle::Participant;
use greenroom_core::domain::{AgentName, RoomName, SessionId, lifecycle};
use greenroom_core::{
    AgentDispatch, Caller, Config, Greenroom, KeyPair, LiveKitConfig, LiveKitError, RoomList,
    RoomSettings, Rooms, StartRequest,
};
use greenroom_livekit::LiveKitRooms;
use greenroom_testkit::agent::ScriptedAgent;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::{random_hex, wait_until};
use tokio::sync::Notify;

use crate::{organization, template};

/// Time limit for each wait: longer than `BUCKET_LEASE`, and than the time after which a lost
/// dispatch is repeated.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The point at which the keeper dies: before a call to LiveKit, or after its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CrashPoint {
    Before(&'static str),
    After(&'static str),
}

/// Rooms that never return from the call at a crash point.
struct HaltingRooms {
    rooms: LiveKitRooms,
    at: CrashPoint,
    halted: Notify,
}

impl HaltingRooms {
    async fn run<T>(&self, call: &'static str, request: impl Future<Output = T>) -> T {
        if self.at == CrashPoint::Before(call) {
            self.halt().await;
        }
        let response = request.await;
        if self.at == CrashPoint::After(call) {
            self.halt().await;
        }
        response
    }

    async fn halt(&self) {
        self.halted.notify_one();
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Rooms for HaltingRooms {
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        self.run("create", self.rooms.create(name, settings)).await
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.rooms.check().await
    }

    async fn list(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError> {
        self.run("list", self.rooms.list(names)).await
    }

    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        self.run("participants", self.rooms.participants(name)).await
    }

    async fn dispatches(
        &self,
        name: &RoomName,
        agent: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError> {
        self.run("dispatches", self.rooms.dispatches(name, agent)).await
    }

    async fn dispatch(
        &self,
        name: &RoomName,
        dispatch: &AgentDispatch,
    ) -> Result<(), LiveKitError> {
        self.run("dispatch", self.rooms.dispatch(name, dispatch)).await
    }

    async fn delete_dispatch(&self, name: &RoomName, id: &str) -> Result<(), LiveKitError> {
        self.run("delete_dispatch", self.rooms.delete_dispatch(name, id)).await
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        self.run("delete", self.rooms.delete(name)).await
    }

    async fn send(&self, name: &RoomName, topic: &str, data: Vec<u8>) -> Result<(), LiveKitError> {
        self.rooms.send(name, topic, data).await
    }
}

/// Two replicas on one database with one session. The first replica dies at a crash point.
struct Replicas {
    _database: Database,
    dying: Greenroom,
    rooms: Arc<HaltingRooms>,
    healthy: Greenroom,
    caller: Caller,
    session: SessionId,
    room: RoomName,
}

impl Replicas {
    async fn with_session(at: CrashPoint, agent: &str) -> Self {
        let database = Database::fresh().await.unwrap();
        let livekit = livekit(Server::shared().await.unwrap());
        let rooms = LiveKitRooms::new(&livekit).unwrap();
        let rooms = Arc::new(HaltingRooms { rooms, at, halted: Notify::new() });
        let config = Config::new(database.url().parse().unwrap(), livekit);
        let dying = Greenroom::builder(config.clone()).rooms(rooms.clone()).build().unwrap();
        let healthy = Greenroom::new(config).unwrap();
        let caller = Caller::backend(organization());
        let mut settings = template("T");
        settings.agent_name = Some(AgentName::try_from(agent.to_owned()).unwrap());
        let id = healthy.create_template(&caller, settings).await.unwrap().id;
        let started = healthy.start(&caller, StartRequest::new(id)).await.unwrap().session;
        let (session, room) = (started.id, started.room_name.checked().unwrap());
        Self { _database: database, dying, rooms, healthy, caller, session, room }
    }

    /// Runs the keeper of the first replica until it dies at the crash point.
    async fn run_dying_keeper(&self) {
        tokio::select! {
            () = self.dying.run_keeper(std::future::pending()) => {}
            halted = tokio::time::timeout(TIMEOUT, self.rooms.halted.notified()) => {
                halted.unwrap_or_else(|_| panic!("the keeper did not reach {:?}", self.rooms.at));
            }
        }
    }
}

fn livekit(server: &Server) -> LiveKitConfig {
    let key = KeyPair::new(server.api_key().parse().unwrap(), server.api_secret().parse().unwrap());
    LiveKitConfig::new(server.url().parse().unwrap(), key)
}

/// The start dispatches the agent while no worker is running, so the keeper has to dispatch the
/// agent again. The keeper dies after the read, the observation, the commit or the action.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_joins_once_wherever_first_keeper_dies() {
    let server = Server::shared().await.unwrap();
    let agent = format!("survivor-{}", random_hex().unwrap());
    let points = [
        CrashPoint::Before("list"),
        CrashPoint::After("list"),
        CrashPoint::After("dispatches"),
        CrashPoint::Before("delete_dispatch"),
        CrashPoint::Before("dispatch"),
        CrashPoint::After("dispatch"),
    ];
    let name = agent.as_str();
    let all = points.map(|point| async move {
        let replicas = Replicas::with_session(point, name).await;
        replicas.run_dying_keeper().await;
        replicas
    });
    let all = futures_util::future::join_all(all).await;
    let worker = ScriptedAgent::named(&agent).start(server).await.unwrap();
    let checks = all.iter().map(|replicas| async {
        let stop = Notify::new();
        let check = async {
            let what = format!("an agent after {:?}", replicas.rooms.at);
            let ready = wait_until(&what, TIMEOUT, async || {
                let session = replicas.healthy.session(&replicas.caller, replicas.session).await?;
                Ok(session.filter(|session| session.agent_status.as_str() == "ready"))
            });
            ready.await.unwrap();
            stop.notify_one();
        };
        tokio::join!(check, replicas.healthy.run_keeper(stop.notified()));
    });
    futures_util::future::join_all(checks).await;
    let jobs = worker.jobs().unwrap();
    for replicas in &all {
        let count = jobs.iter().filter(|job| job.room == replicas.room.as_str()).count();
        assert_eq!(count, 1, "jobs after {:?}: {jobs:?}", replicas.rooms.at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_deleted_wherever_first_keeper_dies() {
    let server = Server::shared().await.unwrap();
    let checks =
        [CrashPoint::Before("delete"), CrashPoint::After("delete")].map(|point| async move {
            let replicas = Replicas::with_session(point, "no-worker").await;
            // The room is created again after the end, so that the keeper has to delete it. It stays
            // empty for longer than the keeper leaves it to the process that ended the session.
            let ended = replicas.healthy.end(&replicas.caller, replicas.session).await.unwrap();
            assert_eq!(ended.unwrap().status.as_str(), "ended");
            let mut settings = RoomSettings::closing();
            settings.empty_timeout = 60;
            replicas.rooms.rooms.create(&replicas.room, &settings).await.unwrap();
            replicas.run_dying_keeper().await;
            let stop = Notify::new();
            let check = async {
                let what = format!("the room to be deleted after {point:?}");
                let deleted = wait_until(&what, TIMEOUT, async || {
                    Ok(server.room(replicas.room.as_str()).await?.is_none().then_some(()))
                });
                deleted.await.unwrap();
                stop.notify_one();
            };
            tokio::join!(check, replicas.healthy.run_keeper(stop.notified()));
        });
    futures_util::future::join_all(checks).await;
}
