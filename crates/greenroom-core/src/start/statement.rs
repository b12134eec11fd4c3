//! One statement that inserts sessions, in a transaction if it needs one.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncPgConnection;
use futures_util::FutureExt;
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::{OrganizationId, SessionCount, SessionId};
use greenroom_store::{
    NewSession, SessionLock, StartKey, StartedRow, StoreError, Subject, organization, record_own,
};
use tokio::time::{Instant, timeout_at};

use super::queue::QueuedStart;
use super::write::{is_token_too_long, latest_begin};
use crate::batch_queue::BatchItem;
use crate::bulkhead::Work;
use crate::database::Cleanup;
use crate::{Error, Greenroom};

type Rows = Vec<(SessionId, Result<StartedRow, StoreError>)>;

/// The sessions that a statement inserted or resumed, each with the id of its [`NewSession`].
pub(super) struct Inserted {
    pub(super) rows: Rows,
    pub(super) access_token: Option<String>,
    pub(super) limit: Option<SessionCount>,
}

/// The sessions to insert, and the time for it.
struct Statement<'a> {
    starts: &'a [QueuedStart],
    sessions: Vec<&'a NewSession>,
    work: Work,
    /// The earliest deadline of the starts.
    deadline: Instant,
    lock_timeout: Duration,
}

impl<'a> Statement<'a> {
    fn new(starts: &'a [QueuedStart], work: Work, lock_timeout: Duration) -> Result<Self, Error> {
        let deadline = starts.iter().map(|start| start.deadline).min().ok_or(Error::Overloaded)?;
        let sessions = starts.iter().map(|start| &*start.item.new).collect();
        Ok(Self { starts, sessions, work, deadline, lock_timeout })
    }

    fn needs_transaction(&self) -> bool {
        self.starts.iter().any(|start| start.item.needs_own_statement())
    }

    fn cleanup(&self) -> Option<Cleanup> {
        cleanup_without_key(&self.sessions)
    }

    async fn execute(
        &self,
        db: &mut AsyncPgConnection,
        lock: Option<&SessionLock>,
    ) -> Result<Rows, StoreError> {
        // The statement must not reach the deadline while it waits for a lock.
        let time_left = self.deadline.saturating_duration_since(Instant::now());
        let maximum = time_left.saturating_sub(Work::StartStep.min_work_time());
        // Zero would mean no limit.
        let lock_timeout = self.lock_timeout.min(maximum).max(Duration::from_millis(1));
        NewSession::insert_all(db, &self.sessions, lock, lock_timeout).await
    }
}

impl Greenroom {
    /// Inserts sessions. An organization with a limit is locked first, so that only one statement at a
    /// time counts its sessions. A token that may be too long is signed before the commit.
    ///
    /// Each wait for a lock takes at most `lock_timeout`, and ends before the deadline of each start.
    pub(super) async fn try_insert(
        &self,
        organization: Option<OrganizationId>,
        starts: &[QueuedStart],
        work: Work,
        lock_timeout: Duration,
    ) -> Result<Inserted, Error> {
        let statement = Statement::new(starts, work, lock_timeout)?;
        if organization.is_some() || statement.needs_transaction() {
            return self.insert_in_transaction(organization, &statement).await;
        }
        let (deadline, cleanup) = (statement.deadline, statement.cleanup());
        let insert = async |db: &mut _| statement.execute(db, None).await;
        let rows = self.shared.database.run_with_cleanup(work, deadline, cleanup, insert).await?;
        Ok(Inserted { rows, access_token: None, limit: None })
    }

    async fn insert_in_transaction(
        &self,
        organization: Option<OrganizationId>,
        statement: &Statement<'_>,
    ) -> Result<Inserted, Error> {
        let &Statement { starts, work, deadline, .. } = statement;
        let (mut lock, mut access_token, mut is_too_long) = (None, None, false);
        let _permit = if organization.is_some() {
            let permits = &self.shared.limits.locking_inserts;
            let permit = timeout_at(latest_begin(deadline), permits.acquire()).await;
            Some(permit.map_err(|_| Error::Overloaded)?)
        } else {
            None
        };
        let insert = async |db: &mut AsyncPgConnection| {
            if let Some(organization) = organization {
                let default = self.shared.limits.max_active_sessions;
                lock = Some(organization::lock_sessions(db, organization, default).await?);
            }
            for start in starts {
                if let Some(key) = start.item.key_to_release {
                    key.release(db, start.item.new.organization_id).await?;
                }
            }
            let rows = statement.execute(db, lock.as_ref()).await?;
            if let ([start], [(_, Ok(row))]) = (starts, &*rows)
                && start.item.may_be_long
            {
                let token = access_token.insert(self.sign_token(row));
                is_too_long = is_token_too_long(token);
            }
            // `None` rolls back, so that a refused start does not release another session's key.
            Ok((!is_too_long && !rows.is_empty()).then_some(rows))
        };
        let database = &self.shared.database;
        let cleanup = statement.cleanup();
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

/// Returns the work that ends the sessions of starts without a key, whose callers do not know them. A
/// session with a key stays open, because a repeated request returns it. `None` if all have a key.
pub(super) fn cleanup_without_key(sessions: &[&NewSession]) -> Option<Cleanup> {
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
