//! The items of a [`BatchQueue`](super::BatchQueue), and the replies to their callers.

use greenroom_store::StoreError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bulkhead::Work;
use crate::{Error, Greenroom};

/// A row to write or to read, which shares a statement with others of its kind.
pub(crate) trait BatchItem: Sized + Send + 'static {
    /// The value that all items of a queue share, such as their organization.
    type Scope: Copy + Send + Sync + 'static;
    /// The caller's result.
    type Output: Send;
    /// Limits the wait in the queue, and the time that must be left for the statement.
    const WORK: Work;

    /// Whether no other item may be in the statement.
    fn needs_own_statement(&self) -> bool {
        false
    }

    /// Executes the statement and replies to each item. Returns true if PostgreSQL did not respond in
    /// time.
    ///
    /// The queue has admitted the items, so a wait for a connection must not refuse them.
    fn execute(
        greenroom: &Greenroom,
        scope: Self::Scope,
        batch: Vec<Queued<Self>>,
    ) -> impl Future<Output = bool> + Send;
}

/// An item, and the caller that waits for it.
pub(crate) struct Queued<T: BatchItem> {
    pub(crate) item: T,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply<T>,
}

type Reply<T> = oneshot::Sender<Result<<T as BatchItem>::Output, Error>>;

/// Receives the result of an item. The receiver fails if the runtime of the task that had the item has
/// shut down.
type Response<T> = oneshot::Receiver<Result<<T as BatchItem>::Output, Error>>;

impl<T: BatchItem> Queued<T> {
    pub(crate) fn new(item: T, deadline: Instant) -> (Self, Response<T>) {
        let (reply, response) = oneshot::channel();
        (Self { item, deadline, reply }, response)
    }

    pub(super) fn is_caller_gone(&self) -> bool {
        self.reply.is_closed()
    }

    /// Refuses an item with too little time left for its statement.
    pub(crate) fn refuse_if_late(self) -> Option<Self> {
        if self.deadline >= Instant::now() + T::WORK.min_work_time() {
            return Some(self);
        }
        let _ = self.reply.send(Err(Error::Overloaded));
        None
    }
}

/// Replies to each item of a statement that failed.
pub(crate) fn reply_error<T: BatchItem>(mut batch: Vec<Queued<T>>, error: Error) {
    let last = batch.pop();
    for item in batch {
        let error = match &error {
            Error::Store(error) => error.for_other_caller().into(),
            _ => Error::Overloaded,
        };
        let _ = item.reply.send(Err(error));
    }
    if let Some(item) = last {
        let _ = item.reply.send(Err(error));
    }
}

/// Splits the items of a statement that failed because of one of them. The later items come first in the
/// result, because the caller takes parts from the end of its list.
pub(crate) fn halves<T: BatchItem>(mut batch: Vec<Queued<T>>) -> [Vec<Queued<T>>; 2] {
    let second_half = batch.split_off(batch.len() / 2);
    [second_half, batch]
}

/// Whether a statement may have failed because of one of its items.
pub(crate) fn may_concern_one_item(error: &Error) -> bool {
    matches!(
        error,
        Error::Store(StoreError::Conflict(_) | StoreError::Query(_) | StoreError::Timeout(_))
    )
}

/// Whether PostgreSQL did not respond in time, or the connection was lost.
pub(crate) fn is_unavailable(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Unavailable(_)))
}
