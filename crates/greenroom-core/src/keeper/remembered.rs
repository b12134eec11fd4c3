//! Checks that this process schedules in memory, because it holds the session's bucket. The stored
//! time, `next_check_at`, does not change: it is indexed, so each change adds index entries.

use std::time::Duration;

use greenroom_domain::SessionId;
use greenroom_store::due::make_due;
use greenroom_store::{Recorded, ReplicaId, Session, SessionKey};
use tokio::time::Instant;

use crate::Greenroom;
use crate::greenroom::Shared;

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
    /// Schedules the checks that facts require: in memory if this process holds the buckets. For the
    /// others, requests a search, because PostgreSQL shows that they are due.
    pub(crate) async fn schedule_after_facts(&self, recorded: &[Recorded]) {
        let held = recorded.iter().filter(|recorded| recorded.is_held);
        self.schedule_in_memory(held.map(|recorded| recorded.key).collect(), Instant::now()).await;
        if recorded.iter().any(|recorded| !recorded.is_held) {
            self.shared.search_requested.notify_one();
        }
    }

    /// Schedules the check of a session that this process has just started, after `delay`.
    pub(crate) async fn schedule_within(&self, delay: Duration, session: &Session) {
        let key = SessionKey { organization_id: session.organization_id, id: session.id };
        self.schedule_in_memory(vec![key], Instant::now() + delay).await;
    }

    /// Schedules these checks in memory. If a bucket has moved to another process since the write,
    /// makes its sessions due in PostgreSQL instead: the new holder may have read them before the
    /// write.
    async fn schedule_in_memory(&self, keys: Vec<SessionKey>, at: Instant) {
        let held = self.shared.buckets.held();
        let (held, moved): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| held.contains_key(&key.id.bucket()));
        for key in held {
            self.shared.schedule.check_by(key, at);
        }
        if !moved.is_empty() {
            self.make_due(&moved).await;
        }
    }

    async fn make_due(&self, keys: &[SessionKey]) {
        let write = async |db: &mut _| make_due(db, keys).await;
        if let Err(error) = self.shared.database.run_for_keeper(write).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(count = keys.len(), error, "failed to make sessions due");
        }
    }
}
