//! The checks that this process will make, in memory: an uneventful check writes nothing.
//!
//! Each session waits for its next check, or is being checked. PostgreSQL stores only the deadline
//! of each session. If the process dies, the next holder of its buckets finds its sessions there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use greenroom_store::{HeldBuckets, ScheduledSession, SessionKey};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Maximum number of sessions that wait in memory, about 40 MB. The checks of further sessions are
/// stored, as a write.
pub(super) const MAX_WAITING: usize = 262_144;

/// Time until a session is checked again whose check had no result: it failed, or found no time.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The sessions that wait for their next check in this process.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<SessionKey, Waiting>,
    /// The waiting sessions whose checks only reconcile them, in the order of these checks.
    idle: BTreeSet<(Instant, SessionKey)>,
    /// The other waiting sessions. Their checks come first.
    urgent: BTreeSet<(Instant, SessionKey)>,
    in_progress: HashSet<SessionKey>,
    /// The number of waiting sessions whose latest check had no result.
    failed: usize,
}

/// When a session is checked next, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) at: Instant,
    pub(super) reason: Reason,
}

/// Why a session is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The check only reconciles the session with LiveKit, and can wait while calls are scarce.
    Reconciliation,
    /// The session waits for a change.
    Change,
    /// The latest check had no result. The session is not checked earlier, even if PostgreSQL shows
    /// that it is due.
    Retry,
}

/// The turn of a session that is being checked. No other check of the session begins before it is
/// dropped.
pub(super) struct Turn {
    schedule: Arc<Schedule>,
    key: SessionKey,
    next: Next,
}

enum Next {
    /// The turn was dropped before its end.
    Retry,
    Wait(Waiting),
    /// This process makes no further check.
    None,
}

impl Turn {
    pub(super) fn key(&self) -> SessionKey {
        self.key
    }

    /// Ends the turn. `None` means that the session needs no further check in this process.
    pub(super) fn end(mut self, next: Option<Waiting>) {
        self.next = next.map_or(Next::None, Next::Wait);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.schedule.state.lock();
        state.in_progress.remove(&self.key);
        let at = Instant::now() + RETRY_DELAY;
        match self.next {
            Next::Retry => state.insert(self.key, Waiting { at, reason: Reason::Retry }),
            Next::Wait(waiting) => state.insert(self.key, waiting),
            Next::None => {}
        }
    }
}

impl Schedule {
    /// Begins the turns of up to `limit` of these sessions. Skips those that are being checked, and
    /// those whose latest check had no result a moment ago.
    pub(super) fn begin(self: &Arc<Self>, keys: Vec<SessionKey>, limit: usize) -> Vec<Turn> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let free = keys.into_iter().filter(|key| state.may_begin(key, now));
        let free: Vec<_> = free.take(limit).collect();
        free.into_iter().map(|key| self.begin_turn(&mut state, key)).collect()
    }

    /// Begins the turns of up to `limit` sessions of these buckets whose time has come.
    pub(super) fn begin_due(self: &Arc<Self>, limit: usize, held: &HeldBuckets) -> Vec<Turn> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let is_held = |key: &SessionKey| held.contains_key(&key.id.bucket());
        let keys: Vec<_> = state.due(now).filter(is_held).take(limit).collect();
        keys.into_iter().map(|key| self.begin_turn(&mut state, key)).collect()
    }

    /// Returns whether the time of a waiting session has come.
    pub(super) fn has_due(&self) -> bool {
        self.state.lock().due(Instant::now()).next().is_some()
    }

    fn begin_turn(self: &Arc<Self>, state: &mut State, key: SessionKey) -> Turn {
        state.remove(key);
        state.in_progress.insert(key);
        Turn { schedule: self.clone(), key, next: Next::Retry }
    }

    /// Puts off the idle sessions whose time has come.
    pub(super) fn put_off_idle(&self, delay: Duration) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let due: Vec<_> = due(&state.idle, now).collect();
        for key in due {
            state.insert(key, Waiting { at: now + delay, reason: Reason::Reconciliation });
        }
    }

    /// Adds the sessions that this process does not know yet. Urgent ones are checked at once, and
    /// the checks of the others are spread evenly over `period`, in the given order.
    pub(super) fn add_unknown(&self, scheduled: &[ScheduledSession], period: Duration) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let free = MAX_WAITING.saturating_sub(state.waiting.len());
        let unknown = scheduled.iter().filter(|session| !state.knows(&session.key)).take(free);
        let (calm, urgent): (Vec<&ScheduledSession>, Vec<_>) =
            unknown.partition(|session| session.is_calm);
        for session in urgent {
            state.insert(session.key, Waiting { at: now, reason: Reason::Change });
        }
        let step = period / u32::try_from(calm.len()).unwrap_or(u32::MAX).max(1);
        for (session, position) in calm.into_iter().zip(0_u32..) {
            let at = now + step * position;
            state.insert(session.key, Waiting { at, reason: Reason::Reconciliation });
        }
    }

    /// Forgets the sessions of buckets that this process does not hold.
    pub(super) fn retain(&self, held: &HeldBuckets) {
        let mut state = self.state.lock();
        let is_held = |key: &SessionKey| held.contains_key(&key.id.bucket());
        let lost: Vec<_> = state.waiting.keys().filter(|key| !is_held(key)).copied().collect();
        for key in lost {
            state.remove(key);
        }
    }

    /// Returns whether no further session can wait in memory.
    pub(super) fn is_full(&self) -> bool {
        self.state.lock().waiting.len() >= MAX_WAITING
    }

    /// Returns the number of sessions that [`begin`](Self::begin) may skip.
    pub(super) fn skipped(&self) -> usize {
        let state = self.state.lock();
        state.in_progress.len() + state.failed
    }
}

impl State {
    fn knows(&self, key: &SessionKey) -> bool {
        self.waiting.contains_key(key) || self.in_progress.contains(key)
    }

    /// The sessions whose time has come: first the urgent ones.
    fn due(&self, now: Instant) -> impl Iterator<Item = SessionKey> {
        due(&self.urgent, now).chain(due(&self.idle, now))
    }

    fn queue(&mut self, reason: Reason) -> &mut BTreeSet<(Instant, SessionKey)> {
        match reason {
            Reason::Reconciliation => &mut self.idle,
            Reason::Change | Reason::Retry => &mut self.urgent,
        }
    }

    fn may_begin(&self, key: &SessionKey, now: Instant) -> bool {
        let waits_for_retry = self
            .waiting
            .get(key)
            .is_some_and(|waiting| waiting.reason == Reason::Retry && now < waiting.at);
        !waits_for_retry && !self.in_progress.contains(key)
    }

    fn insert(&mut self, key: SessionKey, waiting: Waiting) {
        self.remove(key);
        self.failed += usize::from(waiting.reason == Reason::Retry);
        self.waiting.insert(key, waiting);
        self.queue(waiting.reason).insert((waiting.at, key));
    }

    fn remove(&mut self, key: SessionKey) {
        if let Some(waiting) = self.waiting.remove(&key) {
            self.failed -= usize::from(waiting.reason == Reason::Retry);
            self.queue(waiting.reason).remove(&(waiting.at, key));
        }
    }
}

fn due(queue: &BTreeSet<(Instant, SessionKey)>, now: Instant) -> impl Iterator<Item = SessionKey> {
    queue.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use greenroom_domain::{Bucket, OrganizationId, SessionId};
    use tokio::time::advance;
    use uuid::Uuid;

    use super::*;

    fn key(number: u128) -> SessionKey {
        let organization_id = OrganizationId(Uuid::nil());
        SessionKey { organization_id, id: SessionId(Uuid::from_u128(number)) }
    }

    fn waiting(seconds: u64, reason: Reason) -> Waiting {
        Waiting { at: Instant::now() + Duration::from_secs(seconds), reason }
    }

    fn all() -> HeldBuckets {
        (0..1_024).filter_map(Bucket::new).map(|bucket| (bucket, 1)).collect()
    }

    fn scheduled(number: u128, is_calm: bool) -> ScheduledSession {
        ScheduledSession { key: key(number), is_calm }
    }

    fn keys(turns: &[Turn]) -> Vec<u128> {
        turns.iter().map(|turn| turn.key.id.0.as_u128()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn session_has_one_turn_at_a_time_and_then_waits() {
        let schedule = Arc::new(Schedule::default());
        let mut turns = schedule.begin(vec![key(1), key(2)], 8);
        assert_eq!((keys(&turns), schedule.skipped()), (vec![1, 2], 2));
        assert!(schedule.begin(vec![key(1)], 8).is_empty(), "it is being checked");
        turns.remove(0).end(Some(waiting(30, Reason::Reconciliation)));
        turns.remove(0).end(None);
        advance(Duration::from_secs(29)).await;
        assert!(schedule.begin_due(8, &all()).is_empty());
        advance(Duration::from_secs(1)).await;
        drop(schedule.begin_due(8, &all()));
        assert!(schedule.begin(vec![key(1)], 8).is_empty(), "its check failed a moment ago");
        assert_eq!(schedule.skipped(), 1);
        advance(RETRY_DELAY).await;
        assert_eq!(
            keys(&schedule.begin_due(8, &all())),
            [1],
            "a turn that was dropped is repeated"
        );
        assert_eq!(schedule.skipped(), 1, "it is being checked");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_sessions_are_put_off() {
        let schedule = Arc::new(Schedule::default());
        let reasons = [Reason::Reconciliation, Reason::Change];
        for (turn, reason) in schedule.begin(vec![key(1), key(2)], 8).into_iter().zip(reasons) {
            turn.end(Some(waiting(1, reason)));
        }
        advance(Duration::from_secs(1)).await;
        schedule.put_off_idle(Duration::from_secs(10));
        assert_eq!(keys(&schedule.begin_due(8, &all())), [2]);
        advance(Duration::from_secs(10)).await;
        assert!(keys(&schedule.begin_due(8, &all())).contains(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_sessions_are_spread_and_known_ones_stay() {
        let schedule = Arc::new(Schedule::default());
        schedule.begin(vec![key(1)], 8).remove(0).end(Some(waiting(100, Reason::Reconciliation)));
        let found: Vec<_> = (1..=5).map(|number| scheduled(number, true)).collect();
        schedule.add_unknown(&found, Duration::from_secs(8));
        for number in 2..=5 {
            let mut turns = schedule.begin_due(8, &all());
            assert_eq!(keys(&turns), [number]);
            turns.remove(0).end(Some(waiting(100, Reason::Reconciliation)));
            advance(Duration::from_secs(2)).await;
        }
        schedule.add_unknown(&[scheduled(6, false)], Duration::from_secs(8));
        assert_eq!(keys(&schedule.begin_due(8, &all())), [6], "an urgent check is made at once");
        let held = [(key(3).id.bucket(), 1)].into();
        schedule.retain(&held);
        advance(Duration::from_mins(10)).await;
        assert_eq!(keys(&schedule.begin_due(8, &all())), [3]);
    }
    #[tokio::test(start_paused = true)]
    async fn urgent_checks_come_first_and_other_buckets_wait() {
        let schedule = Arc::new(Schedule::default());
        let reasons = [Reason::Reconciliation, Reason::Change];
        for (turn, reason) in schedule.begin(vec![key(1), key(2)], 8).into_iter().zip(reasons) {
            turn.end(Some(waiting(1, reason)));
        }
        assert!(!schedule.has_due());
        advance(Duration::from_secs(5)).await;
        assert!(schedule.has_due());
        let only_first = [(key(1).id.bucket(), 1)].into();
        assert_eq!(keys(&schedule.begin_due(1, &all())), [2]);
        assert_eq!(keys(&schedule.begin_due(8, &only_first)), [1]);
    }
}
