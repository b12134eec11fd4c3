//! The next check of each session, in memory, so that an uneventful check writes nothing.
//!
//! Each session waits for its next check, or is being checked. PostgreSQL stores only the deadline
//! of each session. If the process dies, the next holder of its buckets finds its sessions there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use greenroom_store::{HeldBuckets, ScheduledSession, SessionKey};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::check::CONFLICT_DELAY;

/// Maximum number of sessions that wait in memory, about 40 MB. The next checks of further sessions
/// are stored in PostgreSQL, which costs a write per check.
pub(super) const MAX_WAITING: usize = 262_144;

/// Delay after which a check without a result is repeated: it failed, or its time ran out.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// The sessions that wait for their next check in this process.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<State>,
    /// Wakes the keeper when a session becomes due here.
    pub(super) is_due: Notify,
}

#[derive(Default)]
struct State {
    waiting: HashMap<SessionKey, NextCheck>,
    /// The waiting sessions that are idle, in the order of their checks.
    idle: BTreeSet<(Instant, SessionKey)>,
    /// The other waiting sessions. Their checks come first.
    urgent: BTreeSet<(Instant, SessionKey)>,
    in_progress: HashSet<SessionKey>,
    /// Sessions that are being checked and must be checked again by this time.
    checked_again: HashMap<SessionKey, NextCheck>,
    /// The number of waiting sessions whose check is repeated.
    retrying: usize,
}

/// When a session is checked next, and how urgently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextCheck {
    pub(super) at: Instant,
    pub(super) kind: CheckKind,
}

/// How urgent a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckKind {
    /// The session is idle. The check may be postponed while calls are scarce.
    Idle,
    /// The check is not postponed.
    Urgent,
    /// The latest check had no result. The session is not checked earlier, even if PostgreSQL shows
    /// that it is due.
    Retry,
}

/// Guards the check of one session: while it exists, this process begins no other check of the
/// session. Dropping it without [`finish`](Self::finish) schedules a retry.
pub(super) struct CheckGuard {
    schedule: Arc<Schedule>,
    key: SessionKey,
    outcome: Outcome,
}

enum Outcome {
    /// The guard was dropped without a result.
    Retry,
    CheckAgain(NextCheck),
    /// This process makes no further check.
    Forget,
}

impl NextCheck {
    /// A check as soon as possible.
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), kind: CheckKind::Urgent }
    }

    /// The check that replaces this one and `other`: the earlier time, and idle only if both are. A
    /// retry is not replaced.
    fn merged(self, other: Self) -> Self {
        if self.kind == CheckKind::Retry {
            return self;
        }
        let kind = if self.kind == CheckKind::Idle { other.kind } else { self.kind };
        Self { at: self.at.min(other.at), kind }
    }

    /// The repetition of a check that had no result.
    pub(super) fn retry_after(delay: Duration) -> Self {
        Self { at: Instant::now() + delay, kind: CheckKind::Retry }
    }
}

impl CheckGuard {
    pub(super) fn key(&self) -> SessionKey {
        self.key
    }

    /// Ends the check. `None` means that the session needs no further check in this process.
    pub(super) fn finish(mut self, next: Option<NextCheck>) {
        self.outcome = next.map_or(Outcome::Forget, Outcome::CheckAgain);
    }
}

impl Drop for CheckGuard {
    fn drop(&mut self) {
        let mut state = self.schedule.state.lock();
        state.in_progress.remove(&self.key);
        let again = state.checked_again.remove(&self.key);
        match self.outcome {
            Outcome::Retry => state.insert(self.key, NextCheck::retry_after(RETRY_DELAY)),
            Outcome::CheckAgain(next) => state.insert(self.key, next),
            Outcome::Forget => {}
        }
        if let Some(again) = again {
            // A session that changes all the time must not be checked all the time.
            let at = again.at.max(Instant::now() + CONFLICT_DELAY);
            state.check_by(self.key, NextCheck { at, ..again });
        }
    }
}

impl Schedule {
    /// Begins the checks of up to `limit` of these sessions. Skips sessions that are being checked or
    /// wait for a retry.
    pub(super) fn begin_found(
        self: &Arc<Self>,
        keys: Vec<SessionKey>,
        limit: usize,
    ) -> Vec<CheckGuard> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let free = keys.into_iter().filter(|key| state.may_begin(key, now));
        let free: Vec<_> = free.take(limit).collect();
        free.into_iter().map(|key| self.begin_check(&mut state, key)).collect()
    }

    /// Begins the checks of up to `limit` waiting sessions of these buckets whose time has come.
    pub(super) fn begin_waiting(
        self: &Arc<Self>,
        limit: usize,
        held: &HeldBuckets,
    ) -> Vec<CheckGuard> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let is_held = |key: &SessionKey| held.contains_key(&key.id.bucket());
        let urgent = due(&state.urgent, now).filter(is_held);
        let idle = due(&state.idle, now).filter(is_held);
        // A quarter of a batch, so that idle sessions are reconciled even if many are urgent.
        let idle: Vec<_> = idle.take(limit).collect();
        let urgent = urgent.take(limit - idle.len().min(limit / 4));
        let keys: Vec<_> = urgent.chain(idle).take(limit).collect();
        keys.into_iter().map(|key| self.begin_check(&mut state, key)).collect()
    }

    /// Checks a session at this time, or earlier if it waits for an earlier check. A session whose check
    /// had no result is not checked before its retry.
    pub(super) fn check_by(&self, key: SessionKey, check: NextCheck) {
        self.state.lock().check_by(key, check);
        self.notify_if_due(check);
    }

    fn notify_if_due(&self, check: NextCheck) {
        if check.at <= Instant::now() {
            self.is_due.notify_one();
        }
    }

    /// Returns whether the time of a waiting session has come.
    pub(super) fn has_due(&self) -> bool {
        self.state.lock().due(Instant::now()).next().is_some()
    }

    fn begin_check(self: &Arc<Self>, state: &mut State, key: SessionKey) -> CheckGuard {
        state.remove(key);
        state.in_progress.insert(key);
        CheckGuard { schedule: self.clone(), key, outcome: Outcome::Retry }
    }

    /// Postpones the checks of idle sessions whose time has come.
    pub(super) fn postpone_idle(&self, delay: Duration) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let due: Vec<_> = due(&state.idle, now).collect();
        for key in due {
            state.insert(key, NextCheck { at: now + delay, kind: CheckKind::Idle });
        }
    }

    /// Adds the sessions that this process does not know yet. Sessions that do not seem idle are
    /// checked at once, even if they are known as idle; the checks of the others are spread evenly
    /// over `period`, in the order of `scheduled`.
    pub(super) fn add_scheduled(&self, scheduled: &[ScheduledSession], period: Duration) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        // A check that this process remembers from an earlier time may be too late.
        for session in scheduled.iter().filter(|session| !session.seems_idle) {
            if state.waiting.get(&session.key).is_some_and(|next| next.kind == CheckKind::Idle) {
                state.check_by(session.key, NextCheck { at: now, kind: CheckKind::Urgent });
            }
        }
        let free = MAX_WAITING.saturating_sub(state.waiting.len());
        let unknown = scheduled.iter().filter(|session| !state.knows(&session.key)).take(free);
        let (idle, urgent): (Vec<&ScheduledSession>, Vec<_>) =
            unknown.partition(|session| session.seems_idle);
        for session in urgent {
            state.insert(session.key, NextCheck { at: now, kind: CheckKind::Urgent });
        }
        let step = period / u32::try_from(idle.len()).unwrap_or(u32::MAX).max(1);
        for (session, position) in idle.into_iter().zip(0_u32..) {
            let at = now + step * position;
            state.insert(session.key, NextCheck { at, kind: CheckKind::Idle });
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

    /// Returns the number of sessions that [`begin_found`](Self::begin_found) may skip.
    pub(super) fn max_skipped(&self) -> usize {
        let state = self.state.lock();
        state.in_progress.len() + state.retrying
    }
}

impl State {
    fn knows(&self, key: &SessionKey) -> bool {
        self.waiting.contains_key(key) || self.in_progress.contains(key)
    }

    /// The sessions whose time has come.
    fn due(&self, now: Instant) -> impl Iterator<Item = SessionKey> {
        due(&self.urgent, now).chain(due(&self.idle, now))
    }

    fn queue(&mut self, kind: CheckKind) -> &mut BTreeSet<(Instant, SessionKey)> {
        match kind {
            CheckKind::Idle => &mut self.idle,
            CheckKind::Urgent | CheckKind::Retry => &mut self.urgent,
        }
    }

    fn may_begin(&self, key: &SessionKey, now: Instant) -> bool {
        let waits_for_retry = self
            .waiting
            .get(key)
            .is_some_and(|waiting| waiting.kind == CheckKind::Retry && now < waiting.at);
        !waits_for_retry && !self.in_progress.contains(key)
    }

    fn check_by(&mut self, key: SessionKey, check: NextCheck) {
        if self.in_progress.contains(&key) {
            let again = self.checked_again.entry(key).or_insert(check);
            *again = again.merged(check);
            return;
        }
        let merged = self.waiting.get(&key).map_or(check, |waiting| waiting.merged(check));
        self.insert(key, merged);
    }

    fn insert(&mut self, key: SessionKey, next: NextCheck) {
        self.remove(key);
        self.retrying += usize::from(next.kind == CheckKind::Retry);
        self.waiting.insert(key, next);
        self.queue(next.kind).insert((next.at, key));
    }

    fn remove(&mut self, key: SessionKey) {
        if let Some(next) = self.waiting.remove(&key) {
            self.retrying -= usize::from(next.kind == CheckKind::Retry);
            self.queue(next.kind).remove(&(next.at, key));
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

    fn waiting(seconds: u64, kind: CheckKind) -> NextCheck {
        NextCheck { at: Instant::now() + Duration::from_secs(seconds), kind }
    }

    fn all() -> HeldBuckets {
        (0..1_024).filter_map(Bucket::new).map(|bucket| (bucket, 1)).collect()
    }

    fn scheduled(number: u128, seems_idle: bool) -> ScheduledSession {
        ScheduledSession { key: key(number), seems_idle }
    }

    fn keys(guards: &[CheckGuard]) -> Vec<u128> {
        guards.iter().map(|guard| guard.key.id.0.as_u128()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn session_has_one_check_at_a_time_and_then_waits() {
        let schedule = Arc::new(Schedule::default());
        let mut guards = schedule.begin_found(vec![key(1), key(2)], 8);
        assert_eq!((keys(&guards), schedule.max_skipped()), (vec![1, 2], 2));
        assert!(schedule.begin_found(vec![key(1)], 8).is_empty(), "it is being checked");
        guards.remove(0).finish(Some(waiting(30, CheckKind::Idle)));
        guards.remove(0).finish(None);
        advance(Duration::from_secs(29)).await;
        assert!(schedule.begin_waiting(8, &all()).is_empty());
        advance(Duration::from_secs(1)).await;
        drop(schedule.begin_waiting(8, &all()));
        assert!(schedule.begin_found(vec![key(1)], 8).is_empty(), "its check failed a moment ago");
        assert_eq!(schedule.max_skipped(), 1);
        advance(RETRY_DELAY).await;
        assert_eq!(
            keys(&schedule.begin_waiting(8, &all())),
            [1],
            "a check without a result is repeated"
        );
        assert_eq!(schedule.max_skipped(), 1, "it is being checked");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_sessions_are_postponed() {
        let schedule = Arc::new(Schedule::default());
        let reasons = [CheckKind::Idle, CheckKind::Urgent];
        for (guard, kind) in schedule.begin_found(vec![key(1), key(2)], 8).into_iter().zip(reasons)
        {
            guard.finish(Some(waiting(1, kind)));
        }
        advance(Duration::from_secs(1)).await;
        schedule.postpone_idle(Duration::from_secs(10));
        assert_eq!(keys(&schedule.begin_waiting(8, &all())), [2]);
        advance(Duration::from_secs(10)).await;
        assert!(keys(&schedule.begin_waiting(8, &all())).contains(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_sessions_are_spread_and_known_ones_stay() {
        let schedule = Arc::new(Schedule::default());
        schedule.begin_found(vec![key(1)], 8).remove(0).finish(Some(waiting(100, CheckKind::Idle)));
        let found: Vec<_> = (1..=5).map(|number| scheduled(number, true)).collect();
        schedule.add_scheduled(&found, Duration::from_secs(8));
        for number in 2..=5 {
            let mut guards = schedule.begin_waiting(8, &all());
            assert_eq!(keys(&guards), [number]);
            guards.remove(0).finish(Some(waiting(100, CheckKind::Idle)));
            advance(Duration::from_secs(2)).await;
        }
        schedule.add_scheduled(&[scheduled(6, false)], Duration::from_secs(8));
        assert_eq!(
            keys(&schedule.begin_waiting(8, &all())),
            [6],
            "an urgent check is made at once"
        );
        let held = [(key(3).id.bucket(), 1)].into();
        schedule.retain(&held);
        advance(Duration::from_mins(10)).await;
        assert_eq!(keys(&schedule.begin_waiting(8, &all())), [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_check_is_made_once_and_not_before_a_retry() {
        let schedule = Arc::new(Schedule::default());
        let in_seconds = |seconds| waiting(seconds, CheckKind::Urgent);
        schedule.check_by(key(1), in_seconds(6));
        schedule.check_by(key(1), in_seconds(9));
        advance(Duration::from_secs(6)).await;
        let mut guards = schedule.begin_waiting(8, &all());
        assert_eq!(keys(&guards), [1], "the earlier time");
        // A fact that arrives during the check, which may not have seen it.
        schedule.check_by(key(1), in_seconds(0));
        assert!(schedule.begin_waiting(8, &all()).is_empty(), "it is being checked");
        guards.remove(0).finish(Some(waiting(30, CheckKind::Idle)));
        assert!(schedule.begin_waiting(8, &all()).is_empty());
        advance(CONFLICT_DELAY).await;
        let mut guards = schedule.begin_waiting(8, &all());
        assert_eq!(keys(&guards), [1], "checked again");
        guards.remove(0).finish(Some(NextCheck::retry_after(CONFLICT_DELAY)));
        schedule.check_by(key(1), in_seconds(0));
        assert!(schedule.begin_waiting(8, &all()).is_empty());
        advance(CONFLICT_DELAY).await;
        let mut guards = schedule.begin_waiting(8, &all());
        assert_eq!(keys(&guards), [1]);
        guards.remove(0).finish(None);
        assert!(schedule.state.lock().checked_again.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_session_with_a_new_fact_is_not_postponed() {
        let schedule = Arc::new(Schedule::default());
        schedule.begin_found(vec![key(1)], 8).remove(0).finish(Some(waiting(1, CheckKind::Idle)));
        advance(Duration::from_secs(2)).await;
        schedule.check_by(key(1), NextCheck::now());
        schedule.postpone_idle(Duration::from_secs(10));
        assert_eq!(keys(&schedule.begin_waiting(8, &all())), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn known_idle_session_is_checked_at_once_if_it_no_longer_seems_idle() {
        let schedule = Arc::new(Schedule::default());
        schedule.begin_found(vec![key(1)], 8).remove(0).finish(Some(waiting(40, CheckKind::Idle)));
        schedule.add_scheduled(&[scheduled(1, true)], Duration::from_secs(8));
        assert!(schedule.begin_waiting(8, &all()).is_empty());
        schedule.add_scheduled(&[scheduled(1, false)], Duration::from_secs(8));
        assert_eq!(keys(&schedule.begin_waiting(8, &all())), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_checks_come_first_and_other_buckets_wait() {
        let schedule = Arc::new(Schedule::default());
        let reasons = [CheckKind::Idle, CheckKind::Urgent];
        for (guard, kind) in schedule.begin_found(vec![key(1), key(2)], 8).into_iter().zip(reasons)
        {
            guard.finish(Some(waiting(1, kind)));
        }
        assert!(!schedule.has_due());
        advance(Duration::from_secs(5)).await;
        assert!(schedule.has_due());
        let only_first = [(key(1).id.bucket(), 1)].into();
        assert_eq!(keys(&schedule.begin_waiting(1, &all())), [2]);
        assert_eq!(keys(&schedule.begin_waiting(8, &only_first)), [1]);
    }
}
