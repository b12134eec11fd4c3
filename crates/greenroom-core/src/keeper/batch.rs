//! Checks a batch of sessions: reads them, lists their rooms, checks each, and reschedules the
//! unchanged ones.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use greenroom_domain::lifecycle::postpone;
use greenroom_livekit::RoomList;
use greenroom_store::unreadable::postpone_unreadable;
use greenroom_store::{HeldBuckets, SessionSnapshot, SnapshotBatch, UnreadableSession};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::check::{CONFLICT_DELAY, Check, ReadTime, Rescheduling};
use super::schedule::{CheckGuard, NextCheck};
use super::step::{Step, next_step_isolated};
use crate::Greenroom;

/// Maximum number of sessions of a batch that are checked concurrently.
const OBSERVE_CONCURRENCY: usize = 64;

/// Time limit for all observations of a batch. A slow LiveKit must not delay the next checks of these
/// sessions.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Time without another result after which the unchanged sessions found so far are rescheduled, in
/// one statement.
const RESCHEDULE_DELAY: Duration = Duration::from_millis(500);

/// Time until a session that cannot be decoded is read again: its postponement, and the time after
/// which another process may check it.
const UNREADABLE_DELAY: Duration = Duration::from_secs(90);

impl Greenroom {
    /// Checks a batch. Unchanged sessions are rescheduled together, in one statement; a decision about
    /// any other session is applied at once. Each session releases its permit as soon as it is
    /// checked, so that the slowest session of a batch does not delay further ones.
    pub(super) async fn check_batch(
        &self,
        guards: Vec<CheckGuard>,
        held: &HeldBuckets,
        mut permits: OwnedSemaphorePermit,
    ) {
        let Some((checks, read)) = self.read_batch(guards, held).await else { return };
        let (checks, mut unchanged) = self.postpone_idle_if_scarce(checks, read);
        let deadline = Instant::now() + OBSERVE_TIMEOUT;
        let Some(rooms) = self.list_rooms(&checks, deadline).await else {
            // The checks wait until LiveKit lists rooms again.
            for Check { guard, .. } in checks {
                guard.finish(Some(NextCheck::now()));
            }
            return self.reschedule(unchanged).await;
        };
        let busy = self.sort_by_step(checks, &rooms, read, &mut unchanged);
        let with_permits: Vec<_> =
            busy.into_iter().map(|(check, step)| (check, step, permits.split(1))).collect();
        drop(permits);
        self.check_busy(with_permits, read, deadline, unchanged).await;
    }

    /// Finishes the checks for which the list of rooms is sufficient and nothing changes. Returns the
    /// others, with their next step.
    fn sort_by_step(
        &self,
        checks: Vec<Check>,
        rooms: &RoomList,
        read: ReadTime,
        unchanged: &mut Vec<Rescheduling>,
    ) -> Vec<(Check, Step)> {
        let mut busy = Vec::new();
        for check in checks {
            match next_step_isolated(&check.snapshot, rooms, read.at) {
                Some(Step::Unchanged(decision)) => {
                    unchanged.extend(self.finish_unchanged(check, &decision, read));
                }
                Some(step) => busy.push((check, step)),
                None => {}
            }
        }
        busy
    }

    /// Checks sessions concurrently, and writes the next checks of the unchanged ones.
    async fn check_busy(
        &self,
        busy: Vec<(Check, Step, Option<OwnedSemaphorePermit>)>,
        read: ReadTime,
        deadline: Instant,
        mut unchanged: Vec<Rescheduling>,
    ) {
        let checked = busy.into_iter().map(|(check, step, permit)| async move {
            let rescheduling = self.check_isolated(check, step, read, deadline).await;
            drop(permit);
            rescheduling
        });
        let checked = stream::iter(checked).buffer_unordered(OBSERVE_CONCURRENCY);
        let mut checked = std::pin::pin!(checked);
        // Spawn the writes instead of awaiting them here: a session that is not polled keeps its
        // permit.
        let mut writes = JoinSet::new();
        loop {
            match timeout(RESCHEDULE_DELAY, checked.next()).await {
                Ok(Some(rescheduling)) => unchanged.extend(rescheduling),
                Ok(None) => break,
                Err(_) => self.spawn_reschedule(&mut unchanged, &mut writes),
            }
        }
        self.spawn_reschedule(&mut unchanged, &mut writes);
        while writes.join_next().await.is_some() {}
    }

    /// Reads the sessions of a batch. `None` means that there is nothing to check.
    async fn read_batch(
        &self,
        guards: Vec<CheckGuard>,
        held: &HeldBuckets,
    ) -> Option<(Vec<Check>, ReadTime)> {
        let keys: Vec<_> = guards.iter().map(CheckGuard::key).collect();
        let defaults = self.shared.settings.policy;
        let read = async |db: &mut _| SessionSnapshot::read(db, &keys, held, defaults).await;
        let batch = match self.shared.database.run_for_keeper(read).await {
            Ok(batch) => batch,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(count = keys.len(), error, "failed to read sessions to check");
                return None;
            }
        };
        let instant = Instant::now();
        let SnapshotBatch { at, sessions, unreadable, .. } = batch;
        if !unreadable.is_empty() {
            self.postpone_unreadable(&unreadable).await;
        }
        let mut guards: HashMap<_, _> =
            guards.into_iter().map(|guard| (guard.key(), guard)).collect();
        for session in &unreadable {
            if let Some(guard) = guards.remove(&session.key()) {
                // Until then, a process of another version may check the session.
                guard.finish(Some(NextCheck::retry_after(UNREADABLE_DELAY)));
            }
        }
        let check = |snapshot: SessionSnapshot| {
            let guard = guards.remove(&snapshot.key())?;
            Some(Check { snapshot, guard })
        };
        let checks: Vec<_> = sessions.into_iter().filter_map(check).collect();
        // The other sessions were deleted, or need no further check by this process.
        for guard in guards.into_values() {
            guard.finish(None);
        }
        (!checks.is_empty()).then_some((checks, ReadTime { at, instant }))
    }

    /// Postpones the checks of idle sessions while calls to LiveKit are scarce.
    fn postpone_idle_if_scarce(
        &self,
        checks: Vec<Check>,
        read: ReadTime,
    ) -> (Vec<Check>, Vec<Rescheduling>) {
        if !self.shared.are_calls_scarce() {
            return (checks, Vec::new());
        }
        let (idle, in_progress) = checks
            .into_iter()
            .partition::<Vec<_>, _>(|check| check.snapshot.session.is_idle(read.at));
        let finish_unchanged = |check: Check| {
            let decision = postpone(&check.snapshot.session, read.at);
            self.finish_unchanged(check, &decision, read)
        };
        (in_progress, idle.into_iter().filter_map(finish_unchanged).collect())
    }

    /// Postpones sessions that cannot be decoded. If that fails, they are read again soon.
    async fn postpone_unreadable(&self, unreadable: &[UnreadableSession]) {
        for UnreadableSession { id, error, .. } in unreadable {
            tracing::error!(session_id = %id, error, "postponed session that cannot be decoded");
        }
        let postpone = async |db: &mut _| postpone_unreadable(db, unreadable).await;
        if let Err(error) = self.shared.database.run_for_keeper(postpone).await {
            tracing::warn!(
                count = unreadable.len(),
                error = &error as &dyn std::error::Error,
                "failed to write back session checks"
            );
        }
    }

    fn spawn_reschedule(&self, unchanged: &mut Vec<Rescheduling>, writes: &mut JoinSet<()>) {
        let (greenroom, unchanged) = (self.clone(), std::mem::take(unchanged));
        writes.spawn(async move { greenroom.reschedule(unchanged).await }.in_current_span());
    }

    /// Writes the next checks of unchanged sessions, in one statement. A session that another writer
    /// changed meanwhile is checked again.
    async fn reschedule(&self, unchanged: Vec<Rescheduling>) {
        if unchanged.is_empty() {
            return;
        }
        let next_checks: Vec<_> = unchanged
            .iter()
            .map(|Rescheduling { check, next }| (&check.snapshot, next.stored))
            .collect();
        let reschedule = async |db: &mut _| SessionSnapshot::reschedule(db, &next_checks).await;
        match self.shared.database.run_for_keeper(reschedule).await {
            Ok(rescheduled) => {
                for Rescheduling { check, next } in unchanged {
                    let is_written = rescheduled.contains(&check.snapshot.id);
                    check.guard.finish(if is_written {
                        next.in_memory
                    } else {
                        Some(NextCheck::retry_after(CONFLICT_DELAY))
                    });
                }
            }
            Err(error) => tracing::warn!(
                count = next_checks.len(),
                error = &error as &dyn std::error::Error,
                "failed to write back session checks"
            ),
        }
    }
}
