//! Who is in a room, by LiveKit's own list, looked at until the watch is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use greenroom_testkit::livekit::View;
use greenroom_testkit::{pass, wait_until};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

const BETWEEN_LOOKS: Duration = Duration::from_millis(150);

/// Two agents for longer than this talk over each other.
const TWO_AT_MOST: Duration = Duration::from_secs(5);

/// Long enough for an agent that was sent for once too often to arrive.
pub const SETTLED: Duration = Duration::from_secs(3);

/// A look that is older says nothing of now.
const BLIND_AFTER: Duration = Duration::from_secs(2);

/// A room under watch.
pub struct Watch {
    room: String,
    seen: Arc<Mutex<Seen>>,
    looking: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// Who is there as an active agent, at the last look that was answered.
    agents: Vec<String>,
    /// When each was seen for the first time.
    came: BTreeMap<String, Instant>,
    last_look: Option<Instant>,
    two_since: Option<Instant>,
    two_longest: Duration,
    /// Every change, with the time since the watch began.
    story: Vec<(Duration, Vec<String>)>,
}

impl Watch {
    /// Looks at this room from now on.
    pub fn over(view: View, room: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let looking = tokio::spawn(look(view, seen.clone()));
        Self { room: room.to_owned(), seen, looking }
    }

    /// The room's name.
    pub fn room(&self) -> &str {
        &self.room
    }

    /// The agents in the room.
    pub fn agents(&self) -> Vec<String> {
        lock(&self.seen).agents.clone()
    }

    /// When the first agent was seen.
    pub fn first(&self) -> Option<Instant> {
        lock(&self.seen).came.values().min().copied()
    }

    /// How many agents were ever seen there.
    pub fn ever(&self) -> usize {
        lock(&self.seen).came.len()
    }

    /// When which agents were there, a line for each change.
    pub fn story(&self) -> String {
        let told = lock(&self.seen).story.clone();
        let told = told.into_iter().map(|(at, agents)| format!("{at:>10.1?}  {agents:?}"));
        told.collect::<Vec<_>>().join("\n")
    }

    /// Waits until some agent is there that is none of these.
    pub async fn agent_other_than(&self, known: &[String], timeout: Duration) -> Result<String> {
        wait_until(&format!("an agent in {}", self.room), timeout, || async {
            Ok(self.agents().into_iter().find(|agent| !known.contains(agent)))
        })
        .await
    }

    /// Exactly one agent is there, stays alone, and there were never two for long.
    pub async fn one_agent(&self, timeout: Duration) -> Result<()> {
        self.alone(timeout).await?;
        pass(SETTLED).await?;
        self.still_alone()
    }

    /// Waits until exactly one agent is there.
    pub async fn alone(&self, timeout: Duration) -> Result<()> {
        let what = format!("one agent in {}", self.room);
        wait_until(&what, timeout, || async { Ok((self.agents().len() == 1).then_some(())) })
            .await
            .with_context(|| format!("it has {:?}", self.agents()))
    }

    /// Exactly one agent is there right now, and there were never two for long.
    pub fn still_alone(&self) -> Result<()> {
        // What was seen before the looks began to fail would pass for what is there.
        let last_look = lock(&self.seen).last_look.map(|at| at.elapsed());
        ensure!(
            last_look.is_some_and(|ago| ago <= BLIND_AFTER),
            "{} was last seen {last_look:?} ago: nothing is known of it",
            self.room
        );
        let agents = self.agents();
        ensure!(agents.len() == 1, "{} should have one agent, and has {agents:?}", self.room);
        self.never_two()
    }

    /// No agent is there.
    pub async fn no_agent(&self, timeout: Duration) -> Result<()> {
        let what = format!("{} to be without an agent", self.room);
        wait_until(&what, timeout, || async { Ok(self.agents().is_empty().then_some(())) }).await
    }

    /// There were never two for longer than it takes to get rid of one.
    fn never_two(&self) -> Result<()> {
        let longest = lock(&self.seen).two_longest;
        ensure!(longest <= TWO_AT_MOST, "{} had two agents for {longest:?}", self.room);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(view: View, seen: Arc<Mutex<Seen>>) {
    let begun = Instant::now();
    let mut ticks = interval(BETWEEN_LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A server that is down says nothing about its rooms.
        if let Ok(agents) = view.agents().await {
            let agents = agents.into_iter().map(|agent| agent.identity).collect();
            lock(&seen).note(agents, begun, Instant::now());
        }
    }
}

impl Seen {
    fn note(&mut self, mut agents: Vec<String>, begun: Instant, now: Instant) {
        self.last_look = Some(now);
        agents.sort();
        if self.agents != agents {
            self.story.push((now - begun, agents.clone()));
        }
        for agent in &agents {
            self.came.entry(agent.clone()).or_insert(now);
        }
        if agents.len() > 1 {
            let since = *self.two_since.get_or_insert(now);
            self.two_longest = self.two_longest.max(now - since);
        } else {
            self.two_since = None;
        }
        self.agents = agents;
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_count_for_as_long_as_they_are_together() {
        let (mut seen, begun) = (Seen::default(), Instant::now());
        let mut note = |second: u64, agents: &[&str]| {
            let agents = agents.iter().map(|agent| (*agent).to_owned()).collect();
            seen.note(agents, begun, begun + Duration::from_secs(second));
        };
        note(1, &["one"]);
        note(2, &["one", "other"]);
        note(5, &["other", "one"]);
        note(6, &["other"]);
        note(9, &["one", "other"]);
        assert_eq!(seen.two_longest, Duration::from_secs(3));
        assert_eq!(seen.came["other"], begun + Duration::from_secs(2));
        assert_eq!(seen.story.len(), 4);
    }
}
