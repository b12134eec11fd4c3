//! A watch polls LiveKit for the agents of a room and records every change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::livekit::RoomInspector;
use greenroom_testkit::{sleep_for, wait_until};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// Maximum time for which two agents may be in a room together. The user hears both of them.
pub const MAX_OVERLAP: Duration = Duration::from_secs(5);

/// Time in which a surplus agent would join.
pub const SETTLE_TIME: Duration = Duration::from_secs(3);

/// Maximum age of the last successful poll. The result of an older poll may no longer be true.
const MAX_POLL_AGE: Duration = Duration::from_secs(2);

/// Watches a room until it is dropped.
pub struct Watch {
    room: String,
    record: Arc<Mutex<Record>>,
    polling: JoinHandle<()>,
}

/// The agents that the watch has seen so far.
#[derive(Default)]
struct Record {
    /// The active agents at the last successful poll.
    agents: Vec<String>,
    /// When each agent was seen for the first time.
    first_seen: BTreeMap<String, Instant>,
    /// When the last poll succeeded. `None` before the first success.
    last_poll: Option<Instant>,
    /// Since when more than one agent is in the room. `None` while there is at most one.
    overlap_since: Option<Instant>,
    longest_overlap: Duration,
    /// Every change of the agents, with the time since the watch began.
    history: Vec<(Duration, Vec<String>)>,
}

impl Watch {
    /// Starts to poll the room of this inspector.
    pub fn start(inspector: RoomInspector, room: &str) -> Self {
        Self::start_every(POLL_INTERVAL, inspector, room)
    }

    /// Starts to poll the room of this inspector at another interval.
    pub fn start_every(period: Duration, inspector: RoomInspector, room: &str) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let polling = tokio::spawn(poll(period, inspector, record.clone()));
        Self { room: room.to_owned(), record, polling }
    }

    /// Returns the room's name.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// Returns the identities of the agents that were in the room at the last successful poll.
    pub fn agents(&self) -> Vec<String> {
        self.record.lock().agents.clone()
    }

    /// Returns when the first agent was seen. `None` means that no agent was seen.
    pub fn first_agent_at(&self) -> Option<Instant> {
        self.record.lock().first_seen.values().min().copied()
    }

    /// Returns the number of different agents seen so far.
    pub fn seen_agent_count(&self) -> usize {
        self.record.lock().first_seen.len()
    }

    /// Returns the longest time for which several agents were in the room together.
    pub fn longest_overlap(&self) -> Duration {
        self.record.lock().longest_overlap
    }

    /// Returns the agents over time, one line per change.
    pub fn history(&self) -> String {
        let history = self.record.lock().history.clone();
        let lines = history.into_iter().map(|(at, agents)| format!("{at:>10.1?}  {agents:?}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Waits until the room has an agent that is not one of `known`.
    pub async fn wait_for_new_agent(&self, known: &[String], timeout: Duration) -> Result<String> {
        wait_until(&format!("an agent in {}", self.room), timeout, || async {
            Ok(self.agents().into_iter().find(|agent| !known.contains(agent)))
        })
        .await
    }

    /// Waits until the room has exactly one agent, and checks that it still has exactly one after
    /// [`SETTLE_TIME`].
    pub async fn settle_on_one_agent(&self, timeout: Duration) -> Result<()> {
        self.wait_for_one_agent(timeout).await?;
        sleep_for(SETTLE_TIME).await?;
        self.check_one_agent()
    }

    /// Waits until the room has exactly one agent.
    pub async fn wait_for_one_agent(&self, timeout: Duration) -> Result<()> {
        let what = format!("one agent in {}", self.room);
        wait_until(&what, timeout, || async { Ok((self.agents().len() == 1).then_some(())) })
            .await
            .with_context(|| format!("the room has the agents {:?}", self.agents()))
    }

    /// Checks that the room has exactly one agent now, and never had several for longer than
    /// [`MAX_OVERLAP`].
    pub fn check_one_agent(&self) -> Result<()> {
        let (room, last_poll) = (&self.room, self.record.lock().last_poll);
        let age = last_poll.context("no poll of the room has succeeded")?.elapsed();
        ensure!(age <= MAX_POLL_AGE, "the last successful poll of {room} was {age:?} ago");
        let agents = self.agents();
        ensure!(agents.len() == 1, "{room} has the agents {agents:?} instead of one");
        let longest = self.longest_overlap();
        ensure!(longest <= MAX_OVERLAP, "{room} had several agents for {longest:?}");
        Ok(())
    }

    /// Waits until the room has no agent.
    pub async fn wait_for_no_agent(&self, timeout: Duration) -> Result<()> {
        let what = format!("no agent in {}", self.room);
        wait_until(&what, timeout, || async { Ok(self.agents().is_empty().then_some(())) }).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

async fn poll(period: Duration, inspector: RoomInspector, record: Arc<Mutex<Record>>) {
    let begun = Instant::now();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Ignore an error: the server may be down, which says nothing about the room's agents.
        if let Ok(agents) = inspector.active_agents().await {
            let agents = agents.into_iter().map(|agent| agent.identity).collect();
            record.lock().update(agents, begun, Instant::now());
        }
    }
}

impl Record {
    fn update(&mut self, mut agents: Vec<String>, begun: Instant, now: Instant) {
        self.last_poll = Some(now);
        agents.sort();
        if self.agents != agents {
            self.history.push((now - begun, agents.clone()));
        }
        for agent in &agents {
            self.first_seen.entry(agent.clone()).or_insert(now);
        }
        if agents.len() > 1 {
            let since = *self.overlap_since.get_or_insert(now);
            self.longest_overlap = self.longest_overlap.max(now - since);
        } else {
            self.overlap_since = None;
        }
        self.agents = agents;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_overlap_of_two_agents_is_recorded() {
        let (mut record, begun) = (Record::default(), Instant::now());
        let mut update = |second: u64, agents: &[&str]| {
            let agents = agents.iter().map(|agent| (*agent).to_owned()).collect();
            record.update(agents, begun, begun + Duration::from_secs(second));
        };
        update(1, &["one"]);
        update(2, &["one", "other"]);
        update(5, &["other", "one"]);
        update(6, &["other"]);
        update(9, &["one", "other"]);
        assert_eq!(record.longest_overlap, Duration::from_secs(3));
        assert_eq!(record.first_seen["other"], begun + Duration::from_secs(2));
        assert_eq!(record.history.len(), 4);
    }
}
