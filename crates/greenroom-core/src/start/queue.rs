//! The queues of sessions that wait to be inserted: starts that arrive together share a statement.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use greenroom_domain::OrganizationId;
use greenroom_store::{KeyClaim, NewSession};
use parking_lot::Mutex;

use super::batch::InsertResult;
use crate::Greenroom;
use crate::batch_queue::{BatchItem, BatchQueue, Queued};
use crate::bulkhead::Work;

/// The sessions of one organization, or those of any organizations that need no lock.
pub(crate) type StartQueue = BatchQueue<Insert>;

pub(super) type QueuedStart = Queued<Insert>;

/// A session to insert.
pub(crate) struct Insert {
    pub(super) new: Arc<NewSession>,
    /// An implicit key that must be released by the session that holds it, so that the new session can
    /// claim it. Such a session is inserted alone.
    pub(super) key_to_release: Option<KeyClaim>,
    /// Whether the token must be signed before the commit, because it may be too long. Such a session
    /// is inserted alone.
    pub(super) may_be_long: bool,
}

impl BatchItem for Insert {
    /// The organization whose row is locked. `None` means any organizations that need no lock.
    type Scope = Option<OrganizationId>;
    type Output = InsertResult;
    const WORK: Work = Work::Start;

    fn needs_own_statement(&self) -> bool {
        self.may_be_long || self.key_to_release.is_some()
    }

    async fn execute(
        greenroom: &Greenroom,
        organization: Option<OrganizationId>,
        batch: Vec<QueuedStart>,
    ) -> bool {
        greenroom.insert_batch(organization, batch, Work::StartStep).await
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
        // The lock of the organization's row allows one statement at a time.
        let queue = StartQueue::new(Some(organization), 1);
        queues.insert(organization, Arc::downgrade(&queue));
        queue
    }
}
