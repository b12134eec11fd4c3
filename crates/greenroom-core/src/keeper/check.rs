//! Checks one session of a batch: observe, decide, commit the decision, act.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use greenroom_domain::lifecycle::{Action, Decision, Observation, decide, decide_listed, postpone};
use greenroom_store::SessionSnapshot;
use tokio::time::{Instant, timeout_at};

use super::act::ACTION_TIMEOUT;
use super::observe::Observed;
use super::schedule::{CheckGuard, CheckKind, NextCheck};
use super::step::{Step, changes_nothing};
use crate::{Error, Greenroom};

/// LiveKit counts as sending webhooks for this long after the latest one.
const WEBHOOK_WINDOW: Duration = Duration::from_mins(1);

/// Delay of the next check of a session that was changed during its check. Without it, a session that
/// changes all the time would be checked all the time.
pub(super) const CONFLICT_DELAY: Duration = Duration::from_millis(250);

/// A session that is being checked.
pub(super) struct Check {
    pub(super) snapshot: SessionSnapshot,
    pub(super) guard: CheckGuard,
}

/// When a batch was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadTime {
    /// By PostgreSQL's clock.
    pub(super) at: DateTime<Utc>,
    /// By the clock of this process.
    pub(super) instant: Instant,
}

/// An unchanged session whose stored time of the next check must be written.
pub(super) struct Rescheduling {
    pub(super) check: Check,
    pub(super) next: NextTimes,
}

/// When a session is checked next.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextTimes {
    /// The check that waits in the memory of this process.
    pub(super) in_memory: Option<NextCheck>,
    /// The time to store, by which PostgreSQL shows that the session is due.
    pub(super) stored: Option<DateTime<Utc>>,
}

impl Greenroom {
    /// Ends the check of a session that a decision does not change, unless the stored time of its
    /// next check must change.
    pub(super) fn finish_unchanged(
        &self,
        check: Check,
        decision: &Decision,
        read: ReadTime,
    ) -> Option<Rescheduling> {
        let is_idle = check.snapshot.session.is_idle(read.at);
        let kind = if is_idle { CheckKind::Idle } else { CheckKind::Urgent };
        let next = self.next_times(&check.snapshot, decision, read, kind);
        if next.stored == check.snapshot.session.state.next_check_at {
            check.guard.finish(next.in_memory);
            return None;
        }
        Some(Rescheduling { check, next })
    }

    fn next_times(
        &self,
        snapshot: &SessionSnapshot,
        decision: &Decision,
        read: ReadTime,
        kind: CheckKind,
    ) -> NextTimes {
        let is_held = snapshot.epoch.is_some();
        let is_stored = decision.check_at == decision.state.next_check_at;
        if !is_held || is_stored || self.shared.schedule.is_full() {
            return NextTimes { in_memory: None, stored: decision.check_at };
        }
        let is_informed =
            kind == CheckKind::Idle && self.shared.received_webhook_within(WEBHOOK_WINDOW);
        let in_memory = decision.check_at.map(|check_at| {
            let delay = (check_at - read.at).to_std().unwrap_or_default();
            let mean = self.shared.reconcile_interval();
            let delay = if is_informed { stretched(delay, mean) } else { delay };
            NextCheck { at: read.instant + delay, kind }
        });
        NextTimes { in_memory, stored: decision.state.next_check_at }
    }

    /// Checks one session of a batch. An error or a panic is logged and does not affect the other
    /// sessions; the session is checked again soon.
    pub(super) async fn check_isolated(
        &self,
        check: Check,
        step: Step,
        read: ReadTime,
        deadline: Instant,
    ) -> Option<Rescheduling> {
        let id = check.snapshot.id;
        let checked = self.check(check, step, read, deadline);
        match AssertUnwindSafe(checked).catch_unwind().await {
            Ok(Ok(rescheduling)) => rescheduling,
            Ok(Err(error)) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "failed to apply session decision");
                None
            }
            Err(_) => {
                tracing::error!(session_id = %id, "panicked while reconciling session");
                None
            }
        }
    }

    async fn check(
        &self,
        check: Check,
        step: Step,
        read: ReadTime,
        deadline: Instant,
    ) -> Result<Option<Rescheduling>, Error> {
        let decision = match step {
            Step::Unchanged(decision) => return Ok(self.finish_unchanged(check, &decision, read)),
            Step::Apply(decision) => *decision,
            Step::Observe(sid) => {
                let decide = self.decide_by_room(&check.snapshot, &sid, read.at);
                // The time of the batch ran out, so the check is repeated soon, without a write.
                let Ok(decision) = timeout_at(deadline, decide).await else { return Ok(None) };
                if changes_nothing(&check.snapshot, &decision) {
                    return Ok(self.finish_unchanged(check, &decision, read));
                }
                decision
            }
        };
        // Boxed, so that the many checks that change nothing stay small.
        Box::pin(self.apply(check, decision, read)).await?;
        Ok(None)
    }

    /// Observes a session with a listed room, and decides.
    async fn decide_by_room(
        &self,
        snapshot: &SessionSnapshot,
        sid: &str,
        at: DateTime<Utc>,
    ) -> Decision {
        let session = &snapshot.session;
        if session.state.is_past_max_duration(at) {
            return decide(session, None, at);
        }
        let mut observed = self.observe_room(snapshot, sid).await;
        if let Observed::NodeKnownGone = observed {
            let decision = decide(session, Some(&Observation::default()), at);
            if !decision.state.is_over() {
                return decision;
            }
            // The report is up to 30 s old, and the node may be back: ask again before the end.
            observed = self.confirm_node_gone(snapshot).await;
        }
        match observed {
            Observed::Room(observation) => decide(session, Some(&observation), at),
            // If calls fail for many rooms, only the urgent ones are repeated soon.
            Observed::NodeKnownGone | Observed::Failed if !session.is_idle(at) => {
                decide_listed(session, sid, at)
            }
            _ => postpone(session, at),
        }
    }

    /// Commits a decision, then executes its actions.
    async fn apply(
        &self,
        Check { snapshot, guard }: Check,
        mut decision: Decision,
        read: ReadTime,
    ) -> Result<(), Error> {
        let is_paused = self.shared.breaker.is_open();
        if is_paused && decision.actions.iter().any(Action::dispatches_agent) {
            // The state would record a dispatch that is not made. The check is repeated.
            return Ok(());
        }
        let next = self.next_times(&snapshot, &decision, read, CheckKind::Urgent);
        decision.state.next_check_at = next.stored;
        let commit = async |db: &mut _| {
            let deadline = Instant::now() + ACTION_TIMEOUT;
            Ok((snapshot.commit(db, &decision).await?, deadline))
        };
        let (committed, deadline) = self.shared.database.run_for_keeper(commit).await?;
        if !committed {
            // Another writer changed the session, or another replica acquired the bucket. Discard the
            // observation and check again.
            guard.finish(Some(NextCheck::retry_after(CONFLICT_DELAY)));
            return Ok(());
        }
        self.shared.waiters.wake();
        if !decision.actions.is_empty() {
            // During an outage, the actions are decided again afterwards.
            if is_paused {
                self.shared.room_nodes.forget(&snapshot.room_name);
            } else {
                self.act(&snapshot, &decision.actions, &decision.state, deadline).await;
            }
        }
        guard.finish(next.in_memory);
        Ok(())
    }
}

/// The interval of an idle session while webhooks arrive, because a webhook makes its session due: 180 to
/// 200 % of the configured interval `mean`, where `interval` is 80 to 120 %.
///
/// A shorter delay ends at a deadline, and stays as it is.
fn stretched(interval: Duration, mean: Duration) -> Duration {
    if interval < mean * 3 / 4 { interval } else { mean * 7 / 5 + interval / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_at_most_doubled_and_a_deadline_is_kept() {
        let of = |seconds| stretched(Duration::from_secs(seconds), Duration::from_secs(30));
        for (interval, expected) in [(24, 54), (30, 57), (36, 60), (5, 5)] {
            assert_eq!(of(interval), Duration::from_secs(expected), "{interval}");
        }
    }
}
