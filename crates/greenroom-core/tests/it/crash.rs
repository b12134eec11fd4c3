//! A keeper that dies at any point of its work: another one finishes it, on a real LiveKit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use greenroom_core::domain::lifecycle::{self, Participant};
use greenroom_core::domain::{AgentName, RoomName, SessionId};
use greenroom_core::{
    Caller, Config, Dispatch, Greenroom, KeyPair, LiveKitConfig, LiveKitError, RoomSettings, Rooms,
    StartRequest,
};
use greenroom_livekit::LiveKitRooms;
use greenroom_testkit::agent::Actor;
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::{place, wait_until};
use tokio::sync::Notify;

use crate::{organization, template};

/// A lease is fifteen seconds, and what was asked for and lost is asked for again after six.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the keeper dies: at a call to LiveKit, before it is made or once it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    Before(&'static str),
    After(&'static str),
}

/// Rooms whose caller never comes past a point.
struct Halting {
    rooms: LiveKitRooms,
    at: Point,
    halted: Notify,
}

impl Halting {
    async fn pass<T>(&self, call: &'static str, made: impl Future<Output = T>) -> T {
        if self.at == Point::Before(call) {
            self.halt().await;
        }
        let answer = made.await;
        if self.at == Point::After(call) {
            self.halt().await;
        }
        answer
    }

    async fn halt(&self) {
        self.halted.notify_one();
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Rooms for Halting {
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        self.pass("create", self.rooms.create(name, settings)).await
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.rooms.check().await
    }

    async fn list(&self, names: &[RoomName]) -> Result<HashMap<RoomName, String>, LiveKitError> {
        self.pass("list", self.rooms.list(names)).await
    }

    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        self.pass("participants", self.rooms.participants(name)).await
    }

    async fn dispatches(
        &self,
        name: &RoomName,
        agent: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError> {
        self.pass("dispatches", self.rooms.dispatches(name, agent)).await
    }

    async fn dispatch(&self, name: &RoomName, dispatch: &Dispatch) -> Result<(), LiveKitError> {
        self.pass("dispatch", self.rooms.dispatch(name, dispatch)).await
    }

    async fn delete_dispatch(&self, name: &RoomName, id: &str) -> Result<(), LiveKitError> {
        self.pass("delete_dispatch", self.rooms.delete_dispatch(name, id)).await
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        self.pass("delete", self.rooms.delete(name)).await
    }

    async fn send(&self, name: &RoomName, topic: &str, data: Vec<u8>) -> Result<(), LiveKitError> {
        self.rooms.send(name, topic, data).await
    }
}

/// Two replicas on one database, of which the first dies at a point, and a session of theirs.
struct Replicas {
    _database: Database,
    dying: Greenroom,
    point: Arc<Halting>,
    healthy: Greenroom,
    caller: Caller,
    session: SessionId,
    room: RoomName,
}

impl Replicas {
    async fn with_session(at: Point, agent: &str) -> Self {
        let database = Database::fresh().await.unwrap();
        let livekit = livekit(Server::shared().await.unwrap());
        let rooms = LiveKitRooms::new(&livekit).unwrap();
        let point = Arc::new(Halting { rooms, at, halted: Notify::new() });
        let config = Config::new(database.url().into(), livekit);
        let dying = Greenroom::builder(config.clone()).rooms(point.clone()).build().unwrap();
        let healthy = Greenroom::new(config).unwrap();
        let organization = organization();
        let mut settings = template("T");
        settings.agent_name = Some(AgentName::try_from(agent.to_owned()).unwrap());
        let id = healthy.create_template(organization, settings).await.unwrap().id;
        let caller = Caller::backend(organization);
        let started = healthy.start(&caller, StartRequest::new(id)).await.unwrap().session;
        let (session, room) = (started.id, started.room_name);
        Self { _database: database, dying, point, healthy, caller, session, room }
    }

    /// The first keeps until it comes to its point, and dies there.
    async fn first_dies(&self) {
        tokio::select! {
            () = self.dying.run_keeper(std::future::pending()) => {}
            halted = tokio::time::timeout(PATIENCE, self.point.halted.notified()) => {
                halted.unwrap_or_else(|_| panic!("it never came to {:?}", self.point.at));
            }
        }
    }
}

fn livekit(server: &Server) -> LiveKitConfig {
    LiveKitConfig {
        url: server.url().parse().unwrap(),
        api_url: server.url().parse().unwrap(),
        key: KeyPair { api_key: server.api_key().into(), api_secret: server.api_secret().into() },
        previous_key: None,
    }
}

/// The agent is asked for while no worker is there, so that the keeper has to ask again: it dies
/// once it has claimed, has looked, has committed, has acted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_comes_once_wherever_the_first_keeper_died() {
    let server = Server::shared().await.unwrap();
    let agent = format!("survivor-{}", place::random_hex().unwrap());
    let points = [
        Point::Before("list"),
        Point::After("list"),
        Point::After("dispatches"),
        Point::Before("delete_dispatch"),
        Point::Before("dispatch"),
        Point::After("dispatch"),
    ];
    let name = agent.as_str();
    let all = points.map(|point| async move {
        let replicas = Replicas::with_session(point, name).await;
        replicas.first_dies().await;
        replicas
    });
    let all = futures_util::future::join_all(all).await;
    let worker = Actor::named(&agent).start(server).await.unwrap();
    let judged = all.iter().map(|replicas| async {
        let enough = Notify::new();
        let judge = async {
            let what = format!("one agent after {:?}", replicas.point.at);
            let one = wait_until(&what, PATIENCE, async || {
                let session = replicas.healthy.session(&replicas.caller, replicas.session).await?;
                Ok(session.filter(|one| one.agent_status.as_str() == "ready"))
            });
            one.await.unwrap();
            enough.notify_one();
        };
        tokio::join!(judge, replicas.healthy.run_keeper(enough.notified()));
    });
    futures_util::future::join_all(judged).await;
    let jobs = worker.jobs().unwrap();
    for replicas in &all {
        let here = jobs.iter().filter(|job| job.room == replicas.room.as_str()).count();
        assert_eq!(here, 1, "agents after {:?}: {jobs:?}", replicas.point.at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_closed_wherever_the_first_keeper_died() {
    let server = Server::shared().await.unwrap();
    let closed = [Point::Before("delete"), Point::After("delete")].map(|point| async move {
        let replicas = Replicas::with_session(point, "nobody-here").await;
        // Ended while LiveKit could not be asked, so that its room is left to the keeper.
        let ended = replicas.healthy.end(&replicas.caller, replicas.session).await.unwrap();
        assert_eq!(ended.unwrap().status.as_str(), "ended");
        let settings = RoomSettings::closing();
        replicas.point.rooms.create(&replicas.room, &settings).await.unwrap();
        replicas.first_dies().await;
        let enough = Notify::new();
        let judge = async {
            let what = format!("the room to be gone after {point:?}");
            let gone = wait_until(&what, PATIENCE, async || {
                Ok(server.room(replicas.room.as_str()).await?.is_none().then_some(()))
            });
            gone.await.unwrap();
            enough.notify_one();
        };
        tokio::join!(judge, replicas.healthy.run_keeper(enough.notified()));
    });
    futures_util::future::join_all(closed).await;
}
