//! Checks that this process schedules in memory, because it holds the session's bucket. The stored
//! time, `next_check_at`, does not change: it is indexed, so each change adds index entries.

use greenroom_domain::SessionId;
use greenroom_domain::lifecycle::JOB_ASSIGNMENT_TIMEOUT;
use greenroom_store::due::make_due;
use greenroom_store::{Recorded, ReplicaId, Session, SessionKey};
use tokio::time::Instant;

use super::schedule::{CheckKind, NextCheck};
use crate::greenroom::Shared;
use crate::{Error, Greenroom};

impl Shared {
    /// Returns the replica id of this process, if it holds buckets and has space to remember checks.
    pub(crate) fn remembering_replica(&self) -> Option<ReplicaId> {
        self.buckets.replica().filter(|_| !self.schedule.is_full())
    }

    /// Returns the replica id of this process, if it holds the session's bucket and has space to
    /// remember its check.
    pub(crate) fn replica_that_remembers(&self, id: SessionId) -> Option<ReplicaId> {
        let is_held = self.buckets.held().contains_key(&id.bucket());
        self.remembering_replica().filter(|_| is_held)
    }
}

impl Greenroom {
    /// Schedules the check that a fact requires: in memory if this process holds the bucket.
    /// Otherwise PostgreSQL shows that the session is due; requests a search if this process has
    /// acquired the bucket meanwhile.
    ///
    /// # Errors
    /// Returns the errors of a write. LiveKit then sends the webhook again.
    pub(crate) async fn schedule_after_fact(&self, recorded: Recorded) -> Result<(), Error> {
        let Recorded { key, is_held } = recorded;
        if is_held {
            return self.schedule_in_memory(key, NextCheck::now()).await;
        }
        if self.shared.buckets.held().contains_key(&key.id.bucket()) {
            self.shared.search_requested.notify_one();
        }
        Ok(())
    }

    /// Schedules the first check of an `on_join` session.
    pub(crate) async fn schedule_first_check(&self, session: &Session) {
        let at = Instant::now() + self.shared.reconcile_interval();
        self.schedule_check(session, NextCheck { at, kind: CheckKind::Idle }).await;
    }

    /// Schedules the check whether LiveKit has assigned the dispatch of a new room to a worker.
    pub(crate) async fn schedule_dispatch_check(&self, session: &Session) {
        let at = Instant::now() + JOB_ASSIGNMENT_TIMEOUT.to_std().unwrap_or_default();
        self.schedule_check(session, NextCheck { at, kind: CheckKind::Urgent }).await;
    }

    async fn schedule_check(&self, session: &Session, check: NextCheck) {
        let key = SessionKey { organization_id: session.organization_id, id: session.id };
        if let Err(error) = self.schedule_in_memory(key, check).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(session_id = %key.id, error, "failed to make session due");
        }
    }

    /// Schedules a check in memory. If the bucket has moved to another process since the write,
    /// makes the session due in PostgreSQL instead: the new holder may have read it before the write.
    async fn schedule_in_memory(&self, key: SessionKey, check: NextCheck) -> Result<(), Error> {
        if self.shared.buckets.held().contains_key(&key.id.bucket()) {
            self.shared.schedule.check_by(key, check);
            return Ok(());
        }
        self.shared.database.run_for_keeper(async |db: &mut _| make_due(db, key).await).await
    }
}
