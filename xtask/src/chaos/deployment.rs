//! The deployment of one round: its own LiveKit, database, replicas and workers.

mod evidence;
mod livekit;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::agent::{ScriptedAgent, Worker};
use greenroom_testkit::pg::Database;
use greenroom_testkit::user::{LiveParticipant, User};
use greenroom_testkit::{ports, wait_until};
use reqwest::Client;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::watch::Watch;
use crate::api::{Api, text};
use crate::service::Service;

pub use self::livekit::LiveKit;

/// The agent name of every template. Deployments share no LiveKit, so they can use the same name.
pub const AGENT: &str = "scripted-agent";

/// Maximum time until an agent is ready: the default agent deadline (30 s) and a check by the
/// keeper.
pub const AGENT_TIMEOUT: Duration = Duration::from_secs(35);

/// Maximum time until the room of a session that is over is observed as gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all deployments share.
pub struct ChaosEnv {
    pub program: PathBuf,
    /// The server on which each deployment gets its own database.
    pub database_url: String,
    /// Directory of the logs.
    pub home: PathBuf,
    /// Shared, because building a client takes long.
    pub client: Client,
    /// Whether the scenario `burst` starts more sessions.
    pub large_bursts: bool,
}

/// How a deployment differs from the default one.
#[derive(Default, Clone, Copy)]
pub struct Setup {
    /// Number of replicas. Zero means one.
    pub replicas: u8,
    /// Whether LiveKit is a cluster of two nodes.
    pub two_livekit_nodes: bool,
    /// Whether LiveKit uses its default `target_load`, so that the load of a worker matters.
    pub default_target_load: bool,
    /// Whether webhooks go to a port on which no process listens.
    pub no_webhooks: bool,
    /// `GREENROOM_RECONCILE_SECONDS`. `None` means 30.
    pub reconcile_seconds: Option<u8>,
}

/// The components of one round. They are dropped, and so stopped, in this order.
pub struct Deployment {
    /// `None` for a killed replica.
    replicas: Vec<Option<Service>>,
    /// `None` for a killed worker.
    workers: Vec<Option<Worker>>,
    pub livekit: LiveKit,
    database: Database,
    home: PathBuf,
    client: Client,
    pub large_bursts: bool,
    /// Number of templates, which makes their names unique.
    template_count: Cell<u32>,
    /// The ids of all sessions, with the watches of their rooms.
    sessions: RefCell<Vec<(String, Arc<Watch>)>>,
    /// The times from starts to agents.
    agent_times: RefCell<Vec<Duration>>,
}

/// A started session and the watch of its room.
pub struct Session {
    pub id: String,
    pub room: String,
    /// When the start was requested.
    pub begun: Instant,
    pub watch: Arc<Watch>,
    user: User,
}

impl Deployment {
    /// Starts LiveKit and the replicas. Their logs go to the directory `home`.
    pub async fn start(env: &ChaosEnv, setup: &Setup, home: PathBuf) -> Result<Self> {
        let ports = (0..setup.replicas.max(1)).map(|_| ports::free_tcp_port());
        let ports = ports.collect::<Result<Vec<u16>>>()?;
        let (livekit, database) = tokio::try_join!(
            LiveKit::start(setup, &ports),
            Database::fresh_at(env.database_url.clone())
        )?;
        let seconds = setup.reconcile_seconds.unwrap_or(30).to_string();
        let settings = [("GREENROOM_RECONCILE_SECONDS", seconds.as_str())];
        let mut replicas = Vec::new();
        for (port, number) in ports.into_iter().zip(1..) {
            let home = home.join(format!("replica-{number}"));
            let (program, node) = (env.program.clone(), livekit.node());
            let replica =
                Service::launch(program, port, database.url(), node, &home, &settings).await?;
            replicas.push(Some(replica));
        }
        Ok(Self {
            replicas,
            workers: Vec::new(),
            livekit,
            database,
            home,
            client: env.client.clone(),
            large_bursts: env.large_bursts,
            template_count: Cell::new(0),
            sessions: RefCell::default(),
            agent_times: RefCell::default(),
        })
    }

    /// Returns how often the row of a session was updated, as soon as its room is gone.
    pub async fn row_updates(&self, session: &Session) -> Result<i64> {
        let (sql, connection) = tokio_postgres::connect(self.database.url(), NoTls).await?;
        tokio::spawn(connection);
        let select =
            "select revision from sessions where id::text = $1 and room_gone_at is not null";
        wait_until("the room to be gone", GONE_TIMEOUT, async || {
            let row = sql.query_opt(select, &[&session.id]).await?;
            Ok(row.map(|row| row.try_get(0)).transpose()?)
        })
        .await
    }

    /// Returns the API of the replica with this index.
    pub fn replica_api(&self, index: usize) -> Result<Api> {
        let replica = self.replicas.get(index).and_then(Option::as_ref);
        Ok(Api::of(replica.context("this replica is not running")?, &self.client))
    }

    /// Returns the API of the first running replica.
    pub fn api(&self) -> Result<Api> {
        let replica = self.replicas.iter().flatten().next();
        Ok(Api::of(replica.context("no replica is running")?, &self.client))
    }

    /// Kills the replica with this index.
    pub async fn kill_replica(&mut self, index: usize) -> Result<()> {
        let replica = self.replicas.get_mut(index).and_then(Option::take);
        replica.context("this replica is not running")?.kill().await
    }

    /// Sends a signal to the replica with this index, by its name without `SIG`.
    pub fn signal_replica(&self, index: usize, signal: &str) -> Result<()> {
        let replica = self.replicas.get(index).and_then(Option::as_ref);
        replica.context("this replica is not running")?.signal(signal)
    }

    /// Starts a worker, waits until it has registered with LiveKit, and returns its index.
    pub async fn start_worker(&mut self, agent: &ScriptedAgent) -> Result<usize> {
        self.workers.push(Some(agent.start(self.livekit.node()).await?));
        Ok(self.workers.len() - 1)
    }

    /// Sets the load that a worker reports to LiveKit.
    pub fn set_worker_load(&self, worker: usize, load: f32) -> Result<()> {
        self.workers[worker].as_ref().context("this worker was killed")?.set_load(load)
    }

    /// Kills a worker and its agents.
    pub async fn kill_worker(&mut self, worker: usize) -> Result<()> {
        self.workers[worker].take().context("this worker was killed")?.kill().await
    }

    /// Counts all jobs that running workers have started for this room.
    pub fn job_count(&self, room: &str) -> Result<usize> {
        let mut jobs = 0;
        for worker in self.workers.iter().flatten() {
            jobs += worker.jobs()?.iter().filter(|job| job.room == room).count();
        }
        Ok(jobs)
    }

    /// Waits until running workers have started exactly this number of jobs for the room.
    pub async fn wait_for_jobs(&self, room: &str, count: usize, timeout: Duration) -> Result<()> {
        wait_until(&format!("{count} jobs in {room}"), timeout, || async {
            Ok((self.job_count(room)? == count).then_some(()))
        })
        .await
    }

    /// Creates a template with an agent and these settings, and returns its id.
    pub async fn create_template(&self, settings: Value) -> Result<String> {
        self.template_count.set(self.template_count.get() + 1);
        let mut template = json!({
            "name": format!("Template {}", self.template_count.get()),
            "agent_name": AGENT,
        });
        let fields = template.as_object_mut().context("the template is an object")?;
        fields.extend(settings.as_object().context("the settings are no object")?.clone());
        self.api()?.create_template(&template).await
    }

    /// Starts a session of a template and watches its room.
    pub async fn start_session(&self, template: &str) -> Result<Session> {
        let begun = Instant::now();
        let response = self.api()?.start(template, "ann", None).await?;
        self.watch_session(&response, begun)
    }

    /// Watches the room of a started session. `response` is the response of the start.
    pub fn watch_session(&self, response: &Value, begun: Instant) -> Result<Session> {
        let (id, room) = (text(response, "session_id")?, text(response, "room_name")?);
        let watch = Arc::new(self.watch_room(&room));
        self.sessions.borrow_mut().push((id.clone(), watch.clone()));
        let user = User::new(&text(response, "livekit_url")?, &text(response, "access_token")?);
        Ok(Session { id, room, begun, watch, user })
    }

    pub fn watch_room(&self, room: &str) -> Watch {
        Watch::start(self.livekit.node().inspect_room(room), room)
    }

    /// Waits until the API reports the agent as ready and the agent is in the room. Records the
    /// time since the start.
    pub async fn wait_for_agent(&self, session: &Session, timeout: Duration) -> Result<()> {
        self.wait_for_fields(session, &[("agent_status", "ready")], timeout).await?;
        session.watch.wait_for_new_agent(&[], Duration::from_secs(2)).await?;
        let joined_at = session.watch.first_agent_at().context("the agent was seen above")?;
        self.agent_times.borrow_mut().push(joined_at - session.begun);
        Ok(())
    }

    /// Waits until the API returns the session with these fields.
    pub async fn wait_for_fields(
        &self,
        session: &Session,
        fields: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<()> {
        let api = self.api()?;
        let last = RefCell::new(Value::Null);
        let what = format!("{fields:?}");
        let found = wait_until(&what, timeout, || async {
            let seen = api.session(&session.id).await?;
            let has_fields = fields.iter().all(|(field, text)| seen[field] == **text);
            *last.borrow_mut() = seen;
            Ok(has_fields.then_some(()))
        });
        found.await.with_context(|| format!("the session is {}", last.borrow()))
    }

    /// Checks that the API returns the session with these fields now.
    pub async fn check_fields(&self, session: &Session, fields: &[(&str, &str)]) -> Result<()> {
        let seen = self.api()?.session(&session.id).await?;
        for (field, text) in fields {
            ensure!(seen[field] == **text, "{field} must be {text}: {seen}");
        }
        Ok(())
    }

    /// Waits until the room no longer exists.
    pub async fn wait_until_room_closed(&self, session: &Session, timeout: Duration) -> Result<()> {
        wait_until("the room to be closed", timeout, || async {
            Ok(self.livekit.node().room(&session.room).await?.is_none().then_some(()))
        })
        .await
    }

    /// Stops all components and returns the times from starts to agents.
    pub fn stop(self) -> Vec<Duration> {
        self.agent_times.take()
    }
}

impl Session {
    /// Joins the room as the user and stays.
    pub async fn join_user(&self) -> Result<LiveParticipant> {
        self.user.clone().join_and_stay().await
    }
}
