//! Inserts the sessions of starts that arrived together, in one statement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncPgConnection;
use futures_util::FutureExt;
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::{OrganizationId, SessionCount, SessionId};
use greenroom_store::{
    KeyClaim, NewSession, SessionLock, StartKey, StartedRow, StoreError, Subject, organization,
    record_own,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::queue::{QueuedStart, StartQueue};
use super::write::{is_token_too_long, may_make_long_token};
use crate::bulkhead::Work;
use crate::database::Cleanup;
use crate::{Error, Greenroom};

/// Time that a statement of the queue waits for a transaction that holds one of its keys.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for ending a session whose caller is gone.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of one attempt to insert a session.
#[derive(Default)]
pub(super) struct InsertResult {
    /// `None` if no session was inserted or resumed.
    pub(super) started: Option<StartedRow>,
    /// The join token, if it was already signed to measure it.
    pub(super) access_token: Option<String>,
    /// The limit of open sessions. `None` means that the organization has no limit or was not
    /// locked.
    pub(super) limit: Option<SessionCount>,
}

/// The sessions that a statement inserted or resumed, each with the id of its [`NewSession`].
struct Inserted {
    rows: Vec<(SessionId, Result<StartedRow, StoreError>)>,
    access_token: Option<String>,
    limit: Option<SessionCount>,
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
        let (reply, result) = oneshot::channel();
        let may_be_long = may_make_long_token(new);
        let start = QueuedStart { new: new.clone(), deadline, key_to_release, may_be_long, reply };
        if limits.limited_organizations.contains(id) {
            let queue = limits.organization_queues.of(id);
            self.enqueue(&queue, start).await?;
        } else if start.needs_own_statement() {
            self.insert_alone(None, start, Work::Start).await;
        } else {
            self.enqueue(&limits.start_queue, start).await?;
        }
        // The sender is dropped if the runtime of its task shuts down.
        result.await.unwrap_or(Err(Error::ShuttingDown))
    }

    async fn enqueue(&self, queue: &Arc<StartQueue>, start: QueuedStart) -> Result<(), Error> {
        if let Some(mut slot) = queue.push(start, self)? {
            slot.run_once().await;
        }
        Ok(())
    }

    /// Inserts sessions and replies to their starts. Returns whether PostgreSQL did not respond in time.
    ///
    /// If one session may be the cause of a rejection, or a key stayed locked for [`LOCK_TIMEOUT`],
    /// inserts each session alone: outside the queue and concurrently, or one after the other within the
    /// slot of a limited organization, whose row allows only one statement.
    pub(super) async fn insert_batch(
        &self,
        organization: Option<OrganizationId>,
        batch: Vec<QueuedStart>,
    ) -> bool {
        // The queue has admitted these starts, so their wait for a connection refuses none of them.
        let work = Work::StartStep;
        let error = match self.try_insert(organization, &batch, work, Some(LOCK_TIMEOUT)).await {
            Ok(inserted) => {
                self.reply(batch, inserted);
                return false;
            }
            Err(error) => error,
        };
        // Usually by `LOCK_TIMEOUT`; a statement timeout has the same error.
        let is_canceled = matches!(error, Error::Store(StoreError::Timeout(_)));
        match organization {
            Some(_) if batch.len() > 1 && may_concern_one_session(&error) => {
                for start in batch {
                    self.insert_alone(organization, start, Work::StartStep).await;
                }
                return false;
            }
            None if is_canceled || batch.len() > 1 && may_concern_one_session(&error) => {
                for start in batch {
                    let greenroom = self.clone();
                    let insert = async move { greenroom.insert_after_rejection(start).await };
                    self.shared.database.spawn_until_settled(insert);
                }
                return false;
            }
            _ => {}
        }
        let is_abandoned =
            matches!(&error, Error::Store(StoreError::Unavailable(_) | StoreError::Timeout(_)));
        reply_error(batch, error);
        is_abandoned
    }

    /// Inserts a session alone. Takes a permit first, because the insert may wait until the deadline for
    /// a transaction that holds its key.
    async fn insert_after_rejection(&self, start: QueuedStart) {
        let permit = timeout_at(start.deadline, self.shared.limits.waiting_inserts.acquire()).await;
        match permit {
            Ok(_permit) => self.insert_alone(None, start, Work::StartStep).await,
            Err(_) => reply_error(vec![start], Error::Overloaded),
        }
    }

    async fn insert_alone(
        &self,
        organization: Option<OrganizationId>,
        start: QueuedStart,
        work: Work,
    ) {
        match self.try_insert(organization, std::slice::from_ref(&start), work, None).await {
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
            let started = rows.remove(&start.new.id).transpose().map_err(Error::from);
            let access_token = access_token.take();
            let result = started.map(|started| InsertResult { started, access_token, limit });
            if let Err(Ok(InsertResult { started: Some(_), .. })) = start.reply.send(result)
                && let Some(cleanup) = cleanup_without_key(&[&start.new])
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

    /// Inserts sessions. An organization with a limit is locked first, so that only one statement at a
    /// time counts its sessions. A token that may be too long is signed before the commit.
    async fn try_insert(
        &self,
        organization: Option<OrganizationId>,
        batch: &[QueuedStart],
        work: Work,
        lock_timeout: Option<Duration>,
    ) -> Result<Inserted, Error> {
        let database = &self.shared.database;
        let sessions: Vec<_> = batch.iter().map(|start| &*start.new).collect();
        let deadline = batch.iter().map(|start| start.deadline).min().ok_or(Error::Overloaded)?;
        let cleanup = cleanup_without_key(&sessions);
        if organization.is_none() && !batch.iter().any(QueuedStart::needs_own_statement) {
            let insert =
                async |db: &mut _| NewSession::insert_all(db, &sessions, None, lock_timeout).await;
            let rows = database.run_with_cleanup(work, deadline, cleanup, insert).await?;
            return Ok(Inserted { rows, access_token: None, limit: None });
        }
        let (mut lock, mut access_token, mut is_too_long) = (None, None, false);
        // Statements that wait for a limited organization's row must leave connections for others.
        let locking = &self.shared.limits.waiting_inserts;
        let _permit = match organization {
            Some(_) => {
                Some(timeout_at(deadline, locking.acquire()).await.map_err(|_| Error::Overloaded)?)
            }
            None => None,
        };
        let insert = async |db: &mut AsyncPgConnection| {
            if let Some(organization) = organization {
                let default = self.shared.limits.max_active_sessions;
                lock = Some(organization::lock_sessions(db, organization, default).await?);
            }
            for start in batch {
                if let Some(key) = start.key_to_release {
                    key.release(db, start.new.organization_id).await?;
                }
            }
            let rows = NewSession::insert_all(db, &sessions, lock.as_ref(), None).await?;
            if let ([start], [(_, Ok(row))]) = (batch, &*rows)
                && start.may_be_long
            {
                let token = access_token.insert(self.sign_token(row));
                is_too_long = is_token_too_long(token);
            }
            // `None` rolls back, so that a refused start does not release another session's key.
            Ok((!is_too_long && !rows.is_empty()).then_some(rows))
        };
        let rows = database.transact_with_cleanup(work, deadline, cleanup, insert).await?;
        if let Some(lock) = &lock {
            self.remember_limit(lock);
        }
        let limit = lock.as_ref().and_then(SessionLock::maximum);
        if is_too_long {
            return Err(Error::TokenTooLong);
        }
        Ok(Inserted { rows: rows.unwrap_or_default(), access_token, limit })
    }
}

fn reply_error(mut batch: Vec<QueuedStart>, error: Error) {
    let last = batch.pop();
    for start in batch {
        let error = match &error {
            Error::Store(error) => error.for_other_caller().into(),
            _ => Error::Overloaded,
        };
        let _ = start.reply.send(Err(error));
    }
    if let Some(start) = last {
        let _ = start.reply.send(Err(error));
    }
}

/// Whether a statement may have failed because of one of its sessions.
fn may_concern_one_session(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Conflict(_) | StoreError::Query(_)))
}

/// Returns the work that ends the sessions of starts without a key, whose callers do not know them. A
/// session with a key stays open, because a repeated request returns it. `None` if all have a key.
fn cleanup_without_key(sessions: &[&NewSession]) -> Option<Cleanup> {
    let without_key = sessions.iter().filter(|new| new.key == StartKey::None);
    let sessions: Vec<_> = without_key.map(|new| (new.organization_id, new.id)).collect();
    if sessions.is_empty() {
        return None;
    }
    Some(Arc::new(move |db| {
        let sessions = sessions.clone();
        async move {
            let mut has_ended = false;
            for (organization, id) in sessions {
                let subject = Subject::Session { organization, id, end_user: None };
                has_ended |= record_own(db, subject, &Fact::RoomNotOpened).await?;
            }
            Ok(has_ended)
        }
        .boxed()
    }))
}
