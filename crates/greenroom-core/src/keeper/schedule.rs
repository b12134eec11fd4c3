//! The checks that this process will make, in memory: an uneventful check writes nothing.
//!
//! Each session waits for its next check, or is being checked. PostgreSQL stores only the deadline
//! of each session. If the process dies, the next holder of its buckets finds its sessions there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use greenroom_store::{HeldBuckets, SessionKey};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Maximum number of sessions that wait in memory, about 40 MB. The checks of further sessions are
/// stored, as a write.
pub(super) const MAX_WAITING: usize = 262_144;

/// Time until a session is checked again whose check failed or panicked.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The sessions that wait for their next check in this process.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<SessionKey, Waiting>,
    /// The waiting sessions, in the order of their checks.
    queue: BTreeSet<(Instant, SessionKey)>,
    in_progress: HashSet<SessionKey>,
}

/// When a session is checked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) at: Instant,
    /// Whether the check only reconciles the session with LiveKit, and can wait while calls are
    /// scarce.
    pub(super) is_idle: bool,
}

/// The turn of a session that is being checked. No other check of the session begins before it is
/// dropped.
pub(super) struct Turn {
    schedule: Arc<Schedule>,
    key: SessionKey,
    next: Option<Waiting>,
}

impl Turn {
    pub(super) fn key(&self) -> SessionKey {
        self.key
    }

    /// Ends the turn. `None` means that the session needs no further check in this process.
    pub(super) fn end(mut self, next: Option<Waiting>) {
        self.next = next;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.schedule.state.lock().end_turn(self.key, self.next);
    }
}

impl Schedule {
    /// Begins the turns of up to `limit` of these sessions. Skips those that are being checked.
    pub(super) fn begin(self: &Arc<Self>, keys: Vec<SessionKey>, limit: usize) -> Vec<Turn> {
        let mut state = self.state.lock();
        let free: Vec<_> =
            keys.into_iter().filter(|key| !state.in_progress.contains(key)).take(limit).collect();
        free.into_iter().map(|key| self.begin_turn(&mut state, key)).collect()
    }

    /// Begins the turns of up to `limit` sessions whose time has come.
    pub(super) fn begin_due(self: &Arc<Self>, limit: usize) -> Vec<Turn> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let due = state.queue.iter().take_while(|(at, _)| *at <= now).take(limit);
        let keys: Vec<_> = due.map(|(_, key)| *key).collect();
        keys.into_iter().map(|key| self.begin_turn(&mut state, key)).collect()
    }

    fn begin_turn(self: &Arc<Self>, state: &mut State, key: SessionKey) -> Turn {
        state.remove(key);
        state.in_progress.insert(key);
        let next = Some(Waiting { at: Instant::now() + RETRY_DELAY, is_idle: false });
        Turn { schedule: self.clone(), key, next }
    }

    /// Puts off the idle sessions whose time has come.
    pub(super) fn put_off_idle(&self, delay: Duration) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let due = state.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key);
        let idle: Vec<_> = due.filter(|key| state.waiting[key].is_idle).collect();
        for key in idle {
            state.insert(key, Waiting { at: now + delay, is_idle: true });
        }
    }

    /// Adds the sessions that this process does not know yet. Their checks are spread evenly over
    /// `period`, in this order.
    pub(super) fn track(&self, keys: Vec<SessionKey>, period: Duration) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let unknown = keys.into_iter().filter(|key| !state.knows(key));
        let unknown: Vec<_> =
            unknown.take(MAX_WAITING.saturating_sub(state.waiting.len())).collect();
        let step = period / u32::try_from(unknown.len()).unwrap_or(u32::MAX).max(1);
        for (key, position) in unknown.into_iter().zip(0_u32..) {
            state.insert(key, Waiting { at: now + step * position, is_idle: false });
        }
    }

    /// Forgets the sessions of buckets that this process does not hold.
    pub(super) fn retain(&self, held: &HeldBuckets) {
        let mut state = self.state.lock();
        let is_held = |key: &SessionKey| held.contains_key(&key.id.bucket());
        state.waiting.retain(|key, _| is_held(key));
        state.queue.retain(|(_, key)| is_held(key));
    }

    /// Returns whether no further session can wait in memory.
    pub(super) fn is_full(&self) -> bool {
        self.state.lock().waiting.len() >= MAX_WAITING
    }

    /// Returns the number of sessions that are being checked.
    pub(super) fn in_progress(&self) -> usize {
        self.state.lock().in_progress.len()
    }
}

impl State {
    fn knows(&self, key: &SessionKey) -> bool {
        self.waiting.contains_key(key) || self.in_progress.contains(key)
    }

    fn insert(&mut self, key: SessionKey, waiting: Waiting) {
        self.remove(key);
        self.waiting.insert(key, waiting);
        self.queue.insert((waiting.at, key));
    }

    fn remove(&mut self, key: SessionKey) {
        if let Some(Waiting { at, .. }) = self.waiting.remove(&key) {
            self.queue.remove(&(at, key));
        }
    }

    fn end_turn(&mut self, key: SessionKey, next: Option<Waiting>) {
        self.in_progress.remove(&key);
        if let Some(next) = next {
            self.insert(key, next);
        }
    }
}

#[cfg(test)]
mod tests {
    use greenroom_domain::{OrganizationId, SessionId};
    use tokio::time::advance;
    use uuid::Uuid;

    use super::*;

    fn key(number: u128) -> SessionKey {
        let organization_id = OrganizationId(Uuid::nil());
        SessionKey { organization_id, id: SessionId(Uuid::from_u128(number)) }
    }

    fn waiting(seconds: u64, is_idle: bool) -> Option<Waiting> {
        Some(Waiting { at: Instant::now() + Duration::from_secs(seconds), is_idle })
    }

    fn keys(turns: &[Turn]) -> Vec<u128> {
        turns.iter().map(|turn| turn.key.id.0.as_u128()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn session_has_one_turn_at_a_time_and_then_waits() {
        let schedule = Arc::new(Schedule::default());
        let mut turns = schedule.begin(vec![key(1), key(2)], 8);
        assert_eq!((keys(&turns), schedule.in_progress()), (vec![1, 2], 2));
        assert!(schedule.begin(vec![key(1)], 8).is_empty(), "it is being checked");
        turns.remove(0).end(waiting(30, true));
        turns.remove(0).end(None);
        advance(Duration::from_secs(29)).await;
        assert!(schedule.begin_due(8).is_empty());
        advance(Duration::from_secs(1)).await;
        drop(schedule.begin_due(8));
        advance(RETRY_DELAY).await;
        assert_eq!(keys(&schedule.begin_due(8)), [1], "a turn that was dropped is repeated");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_sessions_are_put_off() {
        let schedule = Arc::new(Schedule::default());
        for (turn, is_idle) in
            schedule.begin(vec![key(1), key(2)], 8).into_iter().zip([true, false])
        {
            turn.end(waiting(1, is_idle));
        }
        advance(Duration::from_secs(1)).await;
        schedule.put_off_idle(Duration::from_secs(10));
        assert_eq!(keys(&schedule.begin_due(8)), [2]);
        advance(Duration::from_secs(10)).await;
        assert!(keys(&schedule.begin_due(8)).contains(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_sessions_are_spread_and_known_ones_stay() {
        let schedule = Arc::new(Schedule::default());
        schedule.begin(vec![key(1)], 8).remove(0).end(waiting(100, true));
        schedule.track((1..=5).map(key).collect(), Duration::from_secs(8));
        for number in 2..=5 {
            assert_eq!(keys(&schedule.begin_due(8)), [number]);
            advance(Duration::from_secs(2)).await;
        }
        let held = [(key(3).id.bucket(), 1)].into();
        schedule.retain(&held);
        advance(Duration::from_mins(10)).await;
        assert_eq!(keys(&schedule.begin_due(8)), [3]);
    }
}
