//! The sessions that stay open during the whole upgrade, with real users and agents.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use greenroom_testkit::user::LiveParticipant;
use greenroom_testkit::{random_hex, wait_until};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::balancer::REPLICAS;
use super::load::{Load, Started, Template, USER_LEFT};
use crate::chaos::deployment::AGENT_TIMEOUT;

/// Number of sessions with a user in the room.
const PRESENT: usize = 20;

/// Number of sessions that wait for their user.
const WAITING: usize = 20;

/// Maximum number of users and agents that join at the same time, because each is a Python process.
const JOIN_CONCURRENCY: usize = 3;

/// Number of users that join and leave in each phase.
const JOINS_PER_PHASE: usize = 2;

/// Maximum time until Greenroom has reacted to a change in LiveKit.
const REACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time until the watch of a room shows the agent that the API reports.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);

/// The sessions, by whether their user is in the room.
pub struct Calls {
    load: Arc<Load>,
    waiting: Vec<Call>,
    present: Vec<Call>,
    /// Sessions that reach their maximum duration. Their users stay until then.
    limited: Vec<Call>,
}

struct Call {
    session: Started,
    template: Template,
    key: String,
    is_on_join: bool,
    user: Option<LiveParticipant>,
}

impl Calls {
    /// Starts the sessions, half of them with `room_creation: on_join`.
    pub async fn start(load: &Arc<Load>) -> Result<Self> {
        let permits = Arc::new(Semaphore::new(JOIN_CONCURRENCY));
        let mut starting = JoinSet::new();
        for number in 0..PRESENT + WAITING {
            let (load, permits) = (load.clone(), permits.clone());
            starting.spawn_local(async move {
                let _permit = permits.acquire().await?;
                let mut call = Call::start(&load, number % 2 == 1).await?;
                if number < PRESENT {
                    call.join(&load).await?;
                }
                call.check(&load).await?;
                anyhow::Ok(call)
            });
        }
        let calls = starting.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        let (present, waiting) = calls.into_iter().partition(|call: &Call| call.user.is_some());
        Ok(Self { load: load.clone(), waiting, present, limited: Vec::new() })
    }

    /// Lets some users leave, some join, and one join a session that soon reaches its maximum
    /// duration.
    pub async fn change(&mut self) -> Result<()> {
        for _ in 0..JOINS_PER_PHASE {
            let leaving = self.present.remove(0);
            self.load.record(leaving.leave(&self.load).await);
        }
        for is_on_join in [false, true] {
            let position = self.waiting.iter().position(|call| call.is_on_join == is_on_join);
            let mut joining = self.waiting.remove(position.context("too few sessions wait")?);
            let joined = joining.join(&self.load).await;
            self.load.record(joined.with_context(|| joining.session.id.clone()));
            self.present.push(joining);
        }
        let template = self.load.templates.limited.clone();
        let (key, load) = (random_hex()?, &self.load);
        let session = load.start(&template, &key).await?;
        let mut call = Call { session, template, key, is_on_join: false, user: None };
        let joined = call.join(load).await;
        load.record(joined.with_context(|| call.session.id.clone()));
        self.limited.push(call);
        Ok(())
    }

    /// Checks each session through both replicas, and retries its start.
    pub async fn check(&self) {
        for call in self.waiting.iter().chain(&self.present) {
            let checked = call.check(&self.load).await;
            self.load.record(checked.with_context(|| call.session.id.clone()));
        }
    }

    /// Ends all sessions, half of them while their user is in the room.
    pub async fn end(&self) {
        for call in self.waiting.iter().chain(&self.present) {
            let ended = self.load.end(&call.session.id).await;
            self.load.record(ended.with_context(|| call.session.id.clone()));
        }
    }
}

impl Call {
    async fn start(load: &Load, is_on_join: bool) -> Result<Self> {
        let templates = &load.templates;
        let template = if is_on_join { &templates.on_join } else { &templates.on_start }.clone();
        let key = random_hex()?;
        let session = load.start(&template, &key).await?;
        let call = Self { session, template, key, is_on_join, user: None };
        if !is_on_join {
            call.wait_for(load, &[("agent_status", "ready")], AGENT_TIMEOUT).await?;
        }
        Ok(call)
    }

    /// Lets the user join, and waits until the agent is ready.
    async fn join(&mut self, load: &Load) -> Result<()> {
        self.user = Some(self.session.user.clone().join_and_stay().await?);
        let active = [("status", "active"), ("agent_status", "ready")];
        self.wait_for(load, &active, AGENT_TIMEOUT).await
    }

    async fn leave(mut self, load: &Load) -> Result<()> {
        load.expect(&self.session.id, USER_LEFT);
        self.user.take().context("the user is not in the room")?.leave().await?;
        let ended = [("status", "ended"), ("end_reason", "user_left")];
        // The reconnect window has 5 s.
        self.wait_for(load, &ended, Duration::from_secs(5) + REACTION_TIMEOUT).await
    }

    /// Checks the session through both replicas, retries its start on both, and checks its agent.
    async fn check(&self, load: &Load) -> Result<()> {
        for replica in 0..REPLICAS {
            let seen = load.read(replica, &self.session.id).await?;
            let status = if self.user.is_some() { "active" } else { "pending" };
            let agent = if self.expects_agent() { "ready" } else { "waiting" };
            ensure!(
                seen["status"] == status && seen["agent_status"] == agent,
                "the session must be {status} and its agent {agent}: {seen}"
            );
            load.retry(replica, &self.session.id, &self.template, &self.key).await?;
        }
        let Some(watch) = self.session.watch.as_ref().filter(|_| self.expects_agent()) else {
            return Ok(());
        };
        watch.wait_for_one_agent(POLL_TIMEOUT).await
    }

    fn expects_agent(&self) -> bool {
        self.user.is_some() || !self.is_on_join
    }

    async fn wait_for(
        &self,
        load: &Load,
        fields: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<()> {
        let id = &self.session.id;
        wait_until(&format!("{fields:?} of {id}"), timeout, || async {
            let seen = load.read(load.balancer.next(), id).await?;
            Ok(fields.iter().all(|(field, text)| seen[field] == **text).then_some(()))
        })
        .await
    }
}
