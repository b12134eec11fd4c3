//! What one round of a scenario plays on: a LiveKit, a database and replicas of its own.

mod evidence;
mod livekit;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::{Actor, Worker};
use greenroom_testkit::pg::Database;
use greenroom_testkit::user::{Present, User};
use greenroom_testkit::{place, wait_until};
use reqwest::Client;
use serde_json::{Value, json};

pub use livekit::LiveKit;

use super::watch::Watch;
use crate::api::{Api, text};
use crate::service::Service;

/// The agent of every template: each stage has a LiveKit, and so the name, to itself.
pub const AGENT: &str = "actor";

/// What all stages are set on.
pub struct Ground {
    pub program: PathBuf,
    /// The server on which each stage has a database of its own.
    pub database_url: String,
    /// Where logs go.
    pub home: PathBuf,
    /// By which all call: to make one takes long.
    pub client: Client,
    /// Whether there is time for more.
    pub long: bool,
}

/// How a stage differs from the usual one.
#[derive(Default, Clone, Copy)]
pub struct Setting {
    /// Zero means one.
    pub replicas: u8,
    /// Two LiveKit nodes.
    pub cluster: bool,
    /// LiveKit goes by the load of workers, as it does out of the box.
    pub usual_target_load: bool,
    /// Webhooks go to a port where nobody listens.
    pub no_webhooks: bool,
    /// `GREENROOM_RECONCILE_SECONDS`.
    pub reconcile_seconds: Option<u8>,
}

/// One round's parts. They are stopped in this order.
pub struct Stage {
    replicas: Vec<Option<Service>>,
    workers: Vec<Option<Worker>>,
    pub livekit: LiveKit,
    _database: Database,
    home: PathBuf,
    client: Client,
    pub long: bool,
    templates: Cell<u32>,
    started: RefCell<Vec<(String, Arc<Watch>)>>,
    times: RefCell<Vec<Duration>>,
}

/// A session that was started, and its room under watch.
pub struct Session {
    pub id: String,
    pub room: String,
    pub begun: Instant,
    pub watch: Arc<Watch>,
    user: User,
}

impl Stage {
    pub async fn set(ground: &Ground, setting: &Setting, home: PathBuf) -> Result<Self> {
        let ports = (0..setting.replicas.max(1)).map(|_| place::free_tcp_port());
        let ports = ports.collect::<Result<Vec<u16>>>()?;
        let (livekit, database) = tokio::try_join!(
            LiveKit::start(setting, &ports),
            Database::fresh_at(ground.database_url.clone())
        )?;
        let seconds = setting.reconcile_seconds.unwrap_or(30).to_string();
        let more = [("GREENROOM_RECONCILE_SECONDS", seconds.as_str())];
        let mut replicas = Vec::new();
        for (port, number) in ports.into_iter().zip(1..) {
            let home = home.join(format!("replica-{number}"));
            let (program, node) = (ground.program.clone(), livekit.node());
            let replica =
                Service::launch(program, port, database.url(), node, &home, &more).await?;
            replicas.push(Some(replica));
        }
        Ok(Self {
            replicas,
            workers: Vec::new(),
            livekit,
            _database: database,
            home,
            client: ground.client.clone(),
            long: ground.long,
            templates: Cell::new(0),
            started: RefCell::default(),
            times: RefCell::default(),
        })
    }

    /// The API of this replica.
    pub fn replica(&self, number: usize) -> Result<Api> {
        let replica = self.replicas.get(number).and_then(Option::as_ref);
        Ok(Api::of(replica.context("this replica does not run")?, &self.client))
    }

    /// The API of the first replica that runs.
    pub fn api(&self) -> Result<Api> {
        let replica = self.replicas.iter().flatten().next();
        Ok(Api::of(replica.context("no replica runs")?, &self.client))
    }

    /// Kills a replica with whatever it does.
    pub async fn kill_replica(&mut self, number: usize) -> Result<()> {
        let replica = self.replicas.get_mut(number).and_then(Option::take);
        replica.context("this replica does not run")?.kill().await
    }

    /// Starts a worker, waits until LiveKit knows it, and says its number.
    pub async fn worker(&mut self, actor: &Actor) -> Result<usize> {
        self.workers.push(Some(actor.start(self.livekit.node()).await?));
        Ok(self.workers.len() - 1)
    }

    /// Makes a worker report this load.
    pub fn set_load(&self, worker: usize, load: f32) -> Result<()> {
        self.workers[worker].as_ref().context("this worker is dead")?.set_load(load)
    }

    /// Kills a worker and its agents.
    pub async fn kill_worker(&mut self, worker: usize) -> Result<()> {
        self.workers[worker].take().context("this worker is dead")?.kill().await
    }

    /// How many jobs for this room were ever begun, by workers that live.
    pub fn jobs_of(&self, room: &str) -> Result<usize> {
        let mut jobs = 0;
        for worker in self.workers.iter().flatten() {
            jobs += worker.jobs()?.iter().filter(|job| job.room == room).count();
        }
        Ok(jobs)
    }

    /// Waits until so many jobs for this room were ever begun.
    pub async fn jobs_become(&self, room: &str, jobs: usize, timeout: Duration) -> Result<()> {
        wait_until(&format!("{jobs} jobs in {room}"), timeout, || async {
            Ok((self.jobs_of(room)? == jobs).then_some(()))
        })
        .await
    }

    /// Makes a template with an agent, and with what else it wants.
    pub async fn template(&self, wanted: Value) -> Result<String> {
        self.templates.set(self.templates.get() + 1);
        let mut template = json!({
            "name": format!("Template {}", self.templates.get()),
            "agent_name": AGENT,
        });
        let settings = template.as_object_mut().context("it is an object")?;
        settings.extend(wanted.as_object().context("settings are an object")?.clone());
        self.api()?.template(&template).await
    }

    /// Starts a session.
    pub async fn start(&self, template: &str) -> Result<Session> {
        let begun = Instant::now();
        let answer = self.api()?.start(template, "ann", None).await?;
        self.started(&answer, begun)
    }

    /// The session of a reply, from now on watched.
    pub fn started(&self, answer: &Value, begun: Instant) -> Result<Session> {
        let (id, room) = (text(answer, "session_id")?, text(answer, "room_name")?);
        let watch = Arc::new(self.watch(&room));
        self.started.borrow_mut().push((id.clone(), watch.clone()));
        let user = User::new(&text(answer, "livekit_url")?, &text(answer, "access_token")?);
        Ok(Session { id, room, begun, watch, user })
    }

    /// Watches a room.
    pub fn watch(&self, room: &str) -> Watch {
        Watch::over(self.livekit.node().view(room), room)
    }

    /// Waits until an agent is there and the API says so, and keeps how long it took.
    pub async fn agent_came(&self, session: &Session, timeout: Duration) -> Result<()> {
        self.until(session, &[("agent_status", "ready")], timeout).await?;
        session.watch.agent_other_than(&[], Duration::from_secs(2)).await?;
        let first = session.watch.first().context("it was seen above")?;
        self.times.borrow_mut().push(first - session.begun);
        Ok(())
    }

    /// Waits until the API shows a session with these fields.
    pub async fn until(
        &self,
        session: &Session,
        wanted: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Value> {
        let api = self.api()?;
        let last = RefCell::new(Value::Null);
        let what = format!("{wanted:?}");
        let found = wait_until(&what, timeout, || async {
            let seen = api.session(&session.id).await?;
            let is_so = wanted.iter().all(|(field, text)| seen[field] == **text);
            *last.borrow_mut() = seen.clone();
            Ok(is_so.then_some(seen))
        });
        found.await.with_context(|| format!("the session is {}", last.borrow()))
    }

    /// The API shows a session with these fields right now.
    pub async fn shows(&self, session: &Session, wanted: &[(&str, &str)]) -> Result<()> {
        let seen = self.api()?.session(&session.id).await?;
        for (field, text) in wanted {
            ensure!(seen[field] == **text, "{field} should be {text}: {seen}");
        }
        Ok(())
    }

    /// Waits until the room is closed.
    pub async fn room_gone(&self, session: &Session, timeout: Duration) -> Result<()> {
        wait_until("the room to be closed", timeout, || async {
            Ok(self.livekit.node().room(&session.room).await?.is_none().then_some(()))
        })
        .await
    }

    /// Stops everything and hands over the times from start to agent.
    pub fn clear(self) -> Vec<Duration> {
        self.times.take()
    }
}

impl Session {
    /// Its user comes in and stays.
    pub async fn user_enters(&self) -> Result<Present> {
        self.user.clone().enter().await
    }
}
