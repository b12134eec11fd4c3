//! A queue of items that share statements: items that arrive while a statement is executed share the
//! next one.

mod item;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use self::item::{
    BatchItem, Queued, halves, is_unavailable, may_concern_one_item, reply_error,
};
use crate::{Error, Greenroom};

/// Maximum number of items that share a statement. A larger statement would hardly cost less per
/// item, and each of its items would wait longer.
const MAX_BATCH: usize = 64;

/// Maximum number of statements in flight of a queue whose statements do not exclude each other: one is
/// executed while the other waits for the disk. With more, each would contain fewer items.
pub(crate) const MAX_IN_FLIGHT: u32 = 2;

/// Maximum number of items in a queue, which bounds its memory.
const MAX_WAITING: usize = 4_096;

/// Duration of a statement that is assumed until the first has finished.
const INITIAL_BATCH_TIME: Duration = Duration::from_millis(5);

/// Items that wait for the next statement. There is no timer: an item that finds a free slot does not
/// wait.
pub(crate) struct BatchQueue<T: BatchItem> {
    scope: T::Scope,
    max_in_flight: u32,
    state: Mutex<State<T>>,
}

struct State<T: BatchItem> {
    waiting: VecDeque<Queued<T>>,
    in_flight: u32,
    /// Since when items have been waiting without a break. `None` while the queue is empty.
    queued_since: Option<Instant>,
    /// Moving average of the duration of a statement.
    batch_time: Duration,
}

impl<T: BatchItem> BatchQueue<T> {
    pub(crate) fn new(scope: T::Scope, max_in_flight: u32) -> Arc<Self> {
        Arc::new(Self { scope, max_in_flight, state: Mutex::default() })
    }

    /// Queues an item. If a slot is free, executes the next statement before it returns.
    ///
    /// # Errors
    /// Returns [`Error::Overloaded`] if the item would probably wait too long.
    pub(crate) async fn enqueue(
        self: &Arc<Self>,
        item: Queued<T>,
        greenroom: &Greenroom,
    ) -> Result<(), Error> {
        if let Some(mut slot) = self.push(item, greenroom)? {
            // Boxed, so that the task of each caller stays small.
            Box::pin(slot.run_once()).await;
        }
        Ok(())
    }

    /// Queues an item. If a slot is free, a new task executes statements until no item waits, so that
    /// the statement goes on if this caller is dropped.
    ///
    /// # Errors
    /// Returns [`Error::Overloaded`] if the item would probably wait too long.
    pub(crate) fn enqueue_in_task(
        self: &Arc<Self>,
        item: Queued<T>,
        greenroom: &Greenroom,
    ) -> Result<(), Error> {
        if let Some(slot) = self.push(item, greenroom)? {
            greenroom.shared.database.spawn(slot.run());
        }
        Ok(())
    }

    fn push(
        self: &Arc<Self>,
        item: Queued<T>,
        greenroom: &Greenroom,
    ) -> Result<Option<Slot<T>>, Error> {
        let mut state = self.state.lock();
        if state.would_wait_too_long(self.max_in_flight) {
            return Err(Error::Overloaded);
        }
        state.push(item);
        if !state.has_free_slot(self.max_in_flight) {
            return Ok(None);
        }
        state.in_flight += 1;
        drop(state);
        Ok(Some(Slot { queue: self.clone(), greenroom: greenroom.clone(), has_run: false }))
    }
}

impl<T: BatchItem> Default for State<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
            queued_since: None,
            batch_time: INITIAL_BATCH_TIME,
        }
    }
}

impl<T: BatchItem> State<T> {
    fn push(&mut self, item: Queued<T>) {
        self.waiting.push_back(item);
        self.queued_since.get_or_insert_with(Instant::now);
    }

    fn has_free_slot(&self, max_in_flight: u32) -> bool {
        self.in_flight < max_in_flight
    }

    /// Whether an item would probably wait too long. With a free slot it does not wait: otherwise, after
    /// PostgreSQL had been slow, no further statement could show that it is fast again.
    fn would_wait_too_long(&self, max_in_flight: u32) -> bool {
        if self.has_free_slot(max_in_flight) {
            return false;
        }
        if self.waiting.len() >= MAX_WAITING {
            return true;
        }
        let batches = u32::try_from(self.waiting.len() / MAX_BATCH + 1).unwrap_or(u32::MAX);
        let wait = self.batch_time.saturating_mul(batches) / max_in_flight;
        T::WORK.max_wait().is_some_and(|maximum| wait > maximum.since(self.queued_since))
    }

    /// Takes the items of the next statement. Skips items whose callers are gone, and refuses those with
    /// too little time left.
    fn take_batch(&mut self) -> Vec<Queued<T>> {
        let mut batch = Vec::<Queued<T>>::new();
        while batch.len() < MAX_BATCH
            && let Some(item) = self
                .waiting
                .pop_front_if(|next| batch.is_empty() || !next.item.needs_own_statement())
        {
            if item.is_caller_gone() {
                continue;
            }
            let Some(item) = item.refuse_if_late() else { continue };
            let is_last = item.item.needs_own_statement();
            batch.push(item);
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

/// The right to execute one statement at a time for a queue. If items are still waiting when the slot is
/// dropped, a new task takes it over.
struct Slot<T: BatchItem> {
    queue: Arc<BatchQueue<T>>,
    greenroom: Greenroom,
    /// False until the first statement. A slot that is dropped before was in a task of a runtime that has
    /// shut down.
    has_run: bool,
}

impl<T: BatchItem> Slot<T> {
    /// Executes the next statement. Returns false if no item is waiting.
    async fn run_once(&mut self) -> bool {
        self.has_run = true;
        let batch = self.queue.state.lock().take_batch();
        if batch.is_empty() {
            return false;
        }
        let begun = Instant::now();
        let is_abandoned = T::execute(&self.greenroom, self.queue.scope, batch).await;
        self.queue.state.lock().count(begun.elapsed(), is_abandoned);
        true
    }

    async fn run(mut self) {
        while self.run_once().await {}
    }
}

impl<T: BatchItem> Drop for Slot<T> {
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
