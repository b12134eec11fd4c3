//! A steady trickle of starts, retries and ends, and the list of all started sessions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::user::User;
use greenroom_testkit::{random_hex, sleep_for};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::balancer::{Balancer, REPLICAS};
use crate::api::text;
use crate::chaos::deployment::AGENT;
use crate::chaos::watch::Watch;

const START_INTERVAL: Duration = Duration::from_secs(1);

/// Every second session of the trickle has an agent. The others expire.
const AGENT_EVERY: usize = 2;

/// Time from the start of a session with an agent until its end is requested.
const CALL_DURATION: Duration = Duration::from_secs(15);

/// Interval between two polls of a room. It is longer than in other scenarios, because about fifty
/// rooms are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The end that a session must have: `status` and `end_reason`.
pub type End = (&'static str, &'static str);

pub const REQUESTED: End = ("ended", "requested");
pub const USER_LEFT: End = ("ended", "user_left");
pub const MAX_DURATION: End = ("ended", "max_duration");
const EXPIRED: End = ("expired", "join_window");

/// A template and the end that its sessions have unless a test ends them otherwise.
#[derive(Clone)]
pub struct Template {
    id: String,
    end: End,
    has_agent: bool,
}

#[derive(Clone)]
pub struct Templates {
    pub on_start: Template,
    pub on_join: Template,
    pub limited: Template,
    expiring: Template,
}

/// A session whose start was acknowledged.
#[derive(Clone)]
pub struct Started {
    pub id: String,
    pub user: User,
    pub watch: Option<Arc<Watch>>,
}

pub struct Entry {
    pub end: End,
    /// `None` for a session without an agent.
    pub watch: Option<Arc<Watch>>,
}

pub struct Load {
    pub balancer: Arc<Balancer>,
    pub livekit: Server,
    pub templates: Templates,
    /// All acknowledged sessions by id.
    pub sessions: Mutex<BTreeMap<String, Entry>>,
    violations: Mutex<Vec<String>>,
    phase: Mutex<&'static str>,
    retries: AtomicUsize,
}

impl Load {
    pub async fn new(balancer: Arc<Balancer>, livekit: Server) -> Result<Self> {
        let templates = Templates::create(&balancer).await?;
        Ok(Self {
            balancer,
            livekit,
            templates,
            sessions: Mutex::default(),
            violations: Mutex::default(),
            phase: Mutex::new("setup"),
            retries: AtomicUsize::new(0),
        })
    }

    pub fn set_phase(&self, phase: &'static str) {
        *self.phase.lock() = phase;
    }

    /// Records a failed check, and continues.
    pub fn record(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            let phase = *self.phase.lock();
            self.violations.lock().push(format!("{phase}: {error:#}"));
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    /// Returns the numbers of started sessions, and of retries that returned the same session.
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions.lock().len(), self.retries.load(Ordering::Relaxed))
    }

    /// Changes the end that a session must have.
    pub fn expect(&self, id: &str, end: End) {
        if let Some(entry) = self.sessions.lock().get_mut(id) {
            entry.end = end;
        }
    }

    /// Starts a session with an idempotency key.
    pub async fn start(&self, template: &Template, key: &str) -> Result<Started> {
        let response = self.send_start(self.balancer.next(), template, key).await?;
        let (id, room) = (text(&response, "session_id")?, text(&response, "room_name")?);
        let user = User::new(&text(&response, "livekit_url")?, &text(&response, "access_token")?);
        let watch = template.has_agent.then(|| {
            let inspector = self.livekit.inspect_room(&room);
            Arc::new(Watch::start_every(POLL_INTERVAL, inspector, &room))
        });
        let entry = Entry { end: template.end, watch: watch.clone() };
        self.sessions.lock().insert(id.clone(), entry);
        Ok(Started { id, user, watch })
    }

    /// Sends a start again to one replica, and checks that it returns the same session.
    pub async fn retry(
        &self,
        replica: usize,
        session: &str,
        template: &Template,
        key: &str,
    ) -> Result<()> {
        let response = self.send_start(replica, template, key).await?;
        let id = text(&response, "session_id")?;
        ensure!(id == session, "the retry of the start of {session} returned {id}");
        self.retries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn send_start(&self, replica: usize, template: &Template, key: &str) -> Result<Value> {
        self.balancer
            .send(replica, |api| async move { api.start(&template.id, "ann", Some(key)).await })
            .await
    }

    /// Reads a session through one replica.
    pub async fn read(&self, replica: usize, id: &str) -> Result<Value> {
        self.balancer.send(replica, |api| async move { api.session(id).await }).await
    }

    /// Ends a session.
    pub async fn end(&self, id: &str) -> Result<()> {
        let end = |api: crate::api::Api| async move { api.end(id).await };
        let ended = self.balancer.send(self.balancer.next(), end).await?;
        ensure!(ended["status"] == "ended", "the session did not end: {ended}");
        Ok(())
    }

    /// Starts sessions until `stop` completes, and then waits for those that have an agent to end.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut ticks = interval(START_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = JoinSet::new();
        let mut number = 0_usize;
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = ticks.tick() => {}
            }
            number += 1;
            let (load, has_agent) = (self.clone(), number.is_multiple_of(AGENT_EVERY));
            running.spawn_local(async move {
                let outcome = load.run_session(has_agent).await;
                load.record(outcome.context("a session of the trickle"));
            });
        }
        running.join_all().await;
    }

    /// Starts a session, retries the start, and ends the session if it has an agent.
    async fn run_session(&self, has_agent: bool) -> Result<()> {
        let template = if has_agent { &self.templates.on_start } else { &self.templates.expiring };
        let key = random_hex()?;
        let started = self.start(template, &key).await?;
        for replica in 0..REPLICAS {
            self.retry(replica, &started.id, template, &key).await?;
        }
        if has_agent {
            sleep_for(CALL_DURATION).await?;
            self.end(&started.id).await?;
        }
        Ok(())
    }
}

impl Templates {
    async fn create(balancer: &Balancer) -> Result<Self> {
        let agent = json!({
            "agent_name": AGENT, "join_window_seconds": 3_600, "max_duration_seconds": 3_600,
            "reconnect_window_seconds": 5,
        });
        let template = async |name: &str, settings: Value, end: End| {
            let mut body = json!({ "name": name });
            let has_agent = settings["agent_name"].is_string();
            let fields = body.as_object_mut().context("the template is an object")?;
            fields.extend(settings.as_object().context("the settings are an object")?.clone());
            let api = balancer.apis().pop().context("no replica is running")?;
            let id = api.create_template(&body).await?;
            anyhow::Ok(Template { id, end, has_agent })
        };
        let (mut on_join, mut limited) = (agent.clone(), agent.clone());
        on_join["room_creation"] = json!("on_join");
        limited["max_duration_seconds"] = json!(60);
        let expiring = json!({ "room_creation": "on_join", "join_window_seconds": 30 });
        Ok(Self {
            on_start: template("On start", agent, REQUESTED).await?,
            on_join: template("On join", on_join, REQUESTED).await?,
            limited: template("Limited", limited, MAX_DURATION).await?,
            expiring: template("Expiring", expiring, EXPIRED).await?,
        })
    }
}
