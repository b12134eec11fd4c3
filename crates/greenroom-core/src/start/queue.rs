//! The queue of sessions that wait to be inserted: starts that arrive together share a statement.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use greenroom_domain::OrganizationId;
use greenroom_store::{KeyClaim, NewSession};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::InsertResult;
use crate::bulkhead::Work;
use crate::{Error, Greenroom};

/// Maximum number of sessions that one statement inserts. A larger statement would hardly cost less
/// per session, and each of its sessions would wait longer.
const MAX_BATCH: usize = 64;

/// Maximum number of statements in flight for organizations without a limit: one is executed while the
/// other waits for the disk. With more, each would contain fewer sessions.
const MAX_IN_FLIGHT: u32 = 2;

/// Maximum number of starts in a queue, which bounds its memory.
const MAX_WAITING: usize = 4_096;

/// Duration of a statement that is assumed until the first has finished.
const INITIAL_BATCH_TIME: Duration = Duration::from_millis(5);

/// Sessions that wait for the next statement.
pub(crate) struct StartQueue {
    /// The organization of the sessions. `None` means any organizations that need no lock.
    organization: Option<OrganizationId>,
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<QueuedStart>,
    in_flight: u32,
    /// Since when starts have been waiting without a break. `None` while the queue is empty.
    queued_since: Option<Instant>,
    /// Moving average of the duration of a statement.
    batch_time: Duration,
}

/// A start that waits for the insert of its session.
pub(super) struct QueuedStart {
    pub(super) new: Arc<NewSession>,
    pub(super) deadline: Instant,
    /// An implicit key that must be released by the session that holds it, so that the new session can
    /// claim it. Such a session is inserted alone.
    pub(super) key_to_release: Option<KeyClaim>,
    /// Whether the token must be signed before the commit, because it may be too long. Such a session
    /// is inserted alone.
    pub(super) may_be_long: bool,
    pub(super) reply: oneshot::Sender<Result<InsertResult, Error>>,
}

impl QueuedStart {
    pub(super) fn needs_own_statement(&self) -> bool {
        self.may_be_long || self.key_to_release.is_some()
    }

    /// Refuses a start with too little time left for its statement.
    pub(super) fn refuse_if_late(self) -> Option<Self> {
        if self.deadline >= Instant::now() + Work::Start.min_work_time() {
            return Some(self);
        }
        let _ = self.reply.send(Err(Error::Overloaded));
        None
    }
}

impl StartQueue {
    pub(crate) fn new(organization: Option<OrganizationId>) -> Arc<Self> {
        Arc::new(Self { organization, state: Mutex::default() })
    }

    /// Queues a start. Returns a slot if one is free; the caller must then run it.
    ///
    /// # Errors
    /// Returns [`Error::Overloaded`] if the start would probably wait too long.
    pub(super) fn push(
        self: &Arc<Self>,
        start: QueuedStart,
        greenroom: &Greenroom,
    ) -> Result<Option<Slot>, Error> {
        let mut state = self.state.lock();
        let max_in_flight = self.max_in_flight();
        if state.would_wait_too_long(max_in_flight) {
            return Err(Error::Overloaded);
        }
        state.waiting.push_back(start);
        state.queued_since.get_or_insert_with(Instant::now);
        if state.in_flight == max_in_flight {
            return Ok(None);
        }
        state.in_flight += 1;
        drop(state);
        Ok(Some(Slot { queue: self.clone(), greenroom: greenroom.clone(), has_run: false }))
    }

    fn max_in_flight(&self) -> u32 {
        // The lock of the organization's row allows one at a time.
        if self.organization.is_some() { 1 } else { MAX_IN_FLIGHT }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
            queued_since: None,
            batch_time: INITIAL_BATCH_TIME,
        }
    }
}

impl State {
    fn would_wait_too_long(&self, max_in_flight: u32) -> bool {
        if self.waiting.len() >= MAX_WAITING {
            return true;
        }
        let batches = u32::try_from(self.waiting.len() / MAX_BATCH + 1).unwrap_or(u32::MAX);
        let wait = self.batch_time.saturating_mul(batches) / max_in_flight;
        Work::Start.max_wait().is_some_and(|maximum| wait > maximum.since(self.queued_since))
    }

    /// Takes the starts of the next statement. Skips starts whose callers are gone, and refuses those
    /// with too little time left.
    fn take_batch(&mut self) -> Vec<QueuedStart> {
        let mut batch = Vec::<QueuedStart>::new();
        while batch.len() < MAX_BATCH
            && let Some(start) =
                self.waiting.pop_front_if(|next| batch.is_empty() || !next.needs_own_statement())
        {
            if start.reply.is_closed() {
                continue;
            }
            let Some(start) = start.refuse_if_late() else { continue };
            let is_last = start.needs_own_statement();
            batch.push(start);
            if is_last {
                break;
            }
        }
        if self.waiting.is_empty() {
            self.queued_since = None;
        }
        batch
    }

    /// Counts the duration of a statement, as at most four times the average unless it was abandoned:
    /// the average follows a database that has become slow, and hardly changes with a single stall.
    fn count(&mut self, time: Duration, is_abandoned: bool) {
        let maximum = (self.batch_time * 4).max(INITIAL_BATCH_TIME);
        let time = if is_abandoned { time } else { time.min(maximum) };
        self.batch_time = (self.batch_time * 31 + time) / 32;
    }
}

/// The right to execute one statement at a time for a queue. If starts are still waiting when the slot
/// is dropped, a new task takes it over.
pub(super) struct Slot {
    queue: Arc<StartQueue>,
    greenroom: Greenroom,
    /// False until the first statement. A slot that is dropped before was in a task of a runtime that has
    /// shut down.
    has_run: bool,
}

impl Slot {
    /// Inserts the sessions of the next statement. Returns false if none is waiting.
    pub(super) async fn run_once(&mut self) -> bool {
        self.has_run = true;
        let batch = self.queue.state.lock().take_batch();
        if batch.is_empty() {
            return false;
        }
        let begun = Instant::now();
        // The queue has admitted these starts, so their wait for a connection refuses none of them.
        let work = Work::StartStep;
        let is_abandoned = self.greenroom.insert_batch(self.queue.organization, batch, work).await;
        self.queue.state.lock().count(begun.elapsed(), is_abandoned);
        true
    }

    async fn run(mut self) {
        while self.run_once().await {}
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if !self.has_run {
            // No task can run. The callers get `Error::ShuttingDown`.
            state.waiting.clear();
        }
        if state.waiting.is_empty() {
            state.in_flight -= 1;
            return;
        }
        drop(state);
        let (queue, greenroom) = (self.queue.clone(), self.greenroom.clone());
        let next = Self { queue, greenroom, has_run: false };
        self.greenroom.shared.database.spawn_until_settled(next.run());
    }
}

/// The queues of organizations with a limit. Their starts lock the organization's row in PostgreSQL;
/// starts that waited there would occupy the connection pool.
#[derive(Default)]
pub(crate) struct OrganizationQueues(Mutex<HashMap<OrganizationId, Weak<StartQueue>>>);

impl OrganizationQueues {
    pub(super) fn of(&self, organization: OrganizationId) -> Arc<StartQueue> {
        let mut queues = self.0.lock();
        if let Some(queue) = queues.get(&organization).and_then(Weak::upgrade) {
            return queue;
        }
        // Remove the queues that are no longer in use.
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = StartQueue::new(Some(organization));
        queues.insert(organization, Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use greenroom_domain::template::TokenTtl;
    use greenroom_domain::{ParticipantIdentity, ReconcileInterval, RoomName, SessionTemplateId};
    use greenroom_store::{StartDefaults, StartKey};
    use tokio::time::{advance, pause};
    use uuid::Uuid;

    use super::*;
    use crate::clock;

    fn start(
        may_be_long: bool,
        reply: oneshot::Sender<Result<InsertResult, Error>>,
    ) -> QueuedStart {
        let at = chrono::DateTime::UNIX_EPOCH;
        let new = NewSession {
            organization_id: OrganizationId(Uuid::nil()),
            id: clock::session_id(at),
            session_template_id: SessionTemplateId(Uuid::nil()),
            user_id: None,
            metadata: None,
            room_name: RoomName::new(at, 1),
            participant_identity: ParticipantIdentity::guest(1),
            participant_name: None,
            participant_attributes: None,
            agent_name: None,
            is_first_check_remembered: false,
            key: StartKey::None,
            defaults: StartDefaults {
                token_ttl: TokenTtl::constant::<3600>(),
                first_check_within: ReconcileInterval::constant::<30>(),
                max_active_sessions: None,
            },
        };
        let deadline = Instant::now() + Duration::from_millis(3_500);
        QueuedStart { new: Arc::new(new), deadline, key_to_release: None, may_be_long, reply }
    }

    /// Queues starts, and returns where their replies arrive.
    fn fill(
        state: &mut State,
        count: usize,
        may_be_long: bool,
    ) -> Vec<oneshot::Receiver<Result<InsertResult, Error>>> {
        let mut replies = Vec::new();
        for _ in 0..count {
            let (reply, result) = oneshot::channel();
            state.waiting.push_back(start(may_be_long, reply));
            state.queued_since.get_or_insert_with(Instant::now);
            replies.push(result);
        }
        replies
    }

    fn sizes(state: &mut State) -> Vec<usize> {
        std::iter::repeat_with(|| state.take_batch().len()).take_while(|size| *size > 0).collect()
    }

    #[tokio::test]
    async fn statement_has_at_most_64_sessions_and_special_ones_are_alone() {
        let mut state = State::default();
        let _replies = (fill(&mut state, 100, false), fill(&mut state, 2, true));
        let _more = fill(&mut state, 3, false);
        assert_eq!(sizes(&mut state), [64, 36, 1, 1, 3]);
        assert!(state.queued_since.is_none());
    }

    #[tokio::test]
    async fn start_with_too_little_time_left_is_refused() {
        pause();
        let mut state = State::default();
        let late = fill(&mut state, 1, false);
        advance(Duration::from_millis(2_600)).await;
        let _in_time = fill(&mut state, 1, false);
        assert_eq!(state.take_batch().len(), 1);
        for reply in late {
            assert!(matches!(reply.await.unwrap(), Err(Error::Overloaded)));
        }
    }

    #[tokio::test]
    async fn burst_is_queued_and_sustained_overload_is_not() {
        pause();
        let mut state = State::default();
        // Each statement is assumed to take 5 ms, and two are in flight: 4,000 starts wait 158 ms.
        let _replies = fill(&mut state, 4_000, false);
        assert!(!state.would_wait_too_long(MAX_IN_FLIGHT));
        advance(Duration::from_millis(100)).await;
        assert!(state.would_wait_too_long(MAX_IN_FLIGHT));
        state.waiting.truncate(3_000);
        assert!(!state.would_wait_too_long(MAX_IN_FLIGHT));
    }

    #[tokio::test]
    async fn one_stall_counts_at_most_four_times_the_average() {
        let mut state = State::default();
        state.count(Duration::from_secs(3), false);
        assert!(state.batch_time < Duration::from_millis(6), "{:?}", state.batch_time);
        state.count(Duration::from_secs(3), true);
        assert!(state.batch_time > Duration::from_millis(90), "{:?}", state.batch_time);
    }
}
