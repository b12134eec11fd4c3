//! Inserts the sessions of starts that arrived together, and finds the one because of which a statement
//! failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use greenroom_domain::{OrganizationId, SessionCount};
use greenroom_store::idempotency::KEY_LOCK_TIMEOUT;
use greenroom_store::{KeyClaim, NewSession, StartKey, StartedRow, StoreError};
use tokio::time::{Instant, timeout_at};

use super::queue::{Insert, QueuedStart};
use super::statement::{Inserted, cleanup_without_key};
use super::write::{latest_begin, may_make_long_token};
use crate::batch_queue::{
    BatchItem, Queued, halves, is_unavailable, may_concern_one_item, reply_error,
};
use crate::bulkhead::Work;
use crate::{Error, Greenroom};

/// Replaces [`KEY_LOCK_TIMEOUT`] in the statements that insert parts of a batch, to find the session whose
/// key is locked.
const SEARCH_LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// Maximum time, after the first such time-out, in which a part is split because of a locked key. A
/// longer search would occupy the queue.
const MAX_SEARCH_TIME: Duration = Duration::from_millis(500);

/// Time limit for ending a session whose caller is gone.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of one attempt to insert a session.
#[derive(Default)]
pub(crate) struct InsertResult {
    /// `None` if no session was inserted or resumed.
    pub(super) started: Option<StartedRow>,
    /// The join token, if it was already signed to measure it.
    pub(super) access_token: Option<String>,
    /// The limit of open sessions. `None` means that the organization has no limit or was not
    /// locked.
    pub(super) limit: Option<SessionCount>,
}

impl Greenroom {
    /// Inserts the session, in one statement with those of other starts that arrive meanwhile.
    pub(super) async fn insert(
        &self,
        new: &Arc<NewSession>,
        key_to_release: Option<KeyClaim>,
        deadline: Instant,
    ) -> Result<InsertResult, Error> {
        let limits = &self.shared.limits;
        let id = new.organization_id;
        let may_be_long = may_make_long_token(new);
        let insert = Insert { new: new.clone(), key_to_release, may_be_long };
        let needs_own_statement = insert.needs_own_statement();
        let (start, result) = Queued::new(insert, deadline);
        if limits.limited_organizations.contains(id) {
            let queue = limits.organization_queues.of(id);
            queue.enqueue(start, self).await?;
        } else if new.key != StartKey::None && limits.locking_organizations.contains(id) {
            Box::pin(self.insert_when_unlocked(start)).await;
        } else if needs_own_statement {
            Box::pin(self.insert_batch(None, vec![start], Work::Start)).await;
        } else {
            limits.start_queue.enqueue(start, self).await?;
        }
        // The sender is dropped if the runtime of its task shuts down.
        result.await.unwrap_or(Err(Error::ShuttingDown))
    }

    /// Inserts sessions and replies to their starts. Returns true if PostgreSQL did not respond in time.
    ///
    /// If one session may be the cause of an error, splits the batch and inserts the parts until the
    /// session is found, or until the search for a locked key takes too long. Sessions whose key is
    /// still locked are then inserted outside the queue, so that other starts do not wait for them. In
    /// an organization with a limit their starts fail, because the insert would hold the lock of the
    /// organization's row while it waits.
    pub(super) async fn insert_batch(
        &self,
        organization: Option<OrganizationId>,
        batch: Vec<QueuedStart>,
        work: Work,
    ) -> bool {
        let (mut lock_timeout, mut search_until) = (KEY_LOCK_TIMEOUT, None);
        let mut is_abandoned = false;
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let part: Vec<_> = part.into_iter().filter_map(QueuedStart::refuse_if_late).collect();
            if part.is_empty() {
                continue;
            }
            let error = match self.try_insert(organization, &part, work, lock_timeout).await {
                Ok(inserted) => {
                    self.reply(part, inserted);
                    continue;
                }
                Err(error) => error,
            };
            let is_locked = is_lock_timeout(&error);
            let now = Instant::now();
            let is_search_over =
                is_locked && now > *search_until.get_or_insert(now + MAX_SEARCH_TIME);
            if part.len() > 1 && !is_search_over && may_concern_one_item(&error) {
                lock_timeout = SEARCH_LOCK_TIMEOUT;
                parts.extend(split(part, is_locked));
            } else if is_locked && organization.is_none() {
                self.spawn_when_unlocked(part);
            } else {
                is_abandoned |= is_unavailable(&error);
                reply_error(part, error);
            }
        }
        is_abandoned
    }

    fn spawn_when_unlocked(&self, starts: Vec<QueuedStart>) {
        for start in starts {
            self.shared.limits.locking_organizations.insert(start.item.new.organization_id);
            let greenroom = self.clone();
            let insert = async move { greenroom.insert_when_unlocked(start).await };
            self.shared.database.spawn_until_settled(insert);
        }
    }

    /// Inserts a session alone, and waits for a transaction that holds its key. Takes a permit first,
    /// because the wait occupies a connection.
    async fn insert_when_unlocked(&self, start: QueuedStart) {
        let last_begin = latest_begin(start.deadline);
        let permit = timeout_at(last_begin, self.shared.limits.lock_waits.acquire()).await;
        let Ok(_permit) = permit else { return reply_error(vec![start], Error::Overloaded) };
        let work = Work::StartStep;
        // `try_insert` ends the wait before the deadline.
        let lock_timeout = Duration::MAX;
        match self.try_insert(None, std::slice::from_ref(&start), work, lock_timeout).await {
            Ok(inserted) => self.reply(vec![start], inserted),
            Err(error) => reply_error(vec![start], error),
        }
    }

    /// Replies to each start of a statement. If the caller is gone, ends the session
    /// of a start without a key.
    fn reply(&self, batch: Vec<QueuedStart>, inserted: Inserted) {
        let Inserted { rows, mut access_token, limit } = inserted;
        let mut rows: HashMap<_, _> = rows.into_iter().collect();
        for start in batch {
            let started = rows.remove(&start.item.new.id).transpose().map_err(Error::from);
            let access_token = access_token.take();
            let result = started.map(|started| InsertResult { started, access_token, limit });
            if let Err(Ok(InsertResult { started: Some(_), .. })) = start.reply.send(result)
                && let Some(cleanup) = cleanup_without_key(&[&start.item.new])
            {
                let greenroom = self.clone();
                self.shared.database.spawn_until_settled(async move {
                    let deadline = Instant::now() + CLEANUP_TIMEOUT;
                    let cleanup = async |db: &mut _| cleanup(db).await;
                    let database = &greenroom.shared.database;
                    let ended = database.run_until(Work::StartStep, deadline, cleanup).await;
                    if let Err(error) = ended {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "failed to clean up after lost caller");
                    }
                });
            }
        }
    }
}

/// Whether a statement waited longer than its `lock_timeout`. `statement_timeout` (5 s) returns the same
/// error, but a start reaches its own, shorter time limit first.
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Timeout(_)))
}

/// Splits a rejected part into two. The caller inserts the second one first. If `is_locked`, a session
/// with a key is probably the cause, so all sessions without a key form the second part.
fn split(mut part: Vec<QueuedStart>, is_locked: bool) -> [Vec<QueuedStart>; 2] {
    if is_locked {
        let has_key = |start: &QueuedStart| start.item.new.key != StartKey::None;
        let (keyed, keyless): (Vec<_>, Vec<_>) = part.into_iter().partition(has_key);
        if !keyed.is_empty() && !keyless.is_empty() {
            return [keyed, keyless];
        }
        part = if keyed.is_empty() { keyless } else { keyed };
    }
    halves(part)
}
