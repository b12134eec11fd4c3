//! Waiting for a session to change: one query per process serves all waiting requests.

use std::collections::HashMap;
use std::time::Duration;

use greenroom_domain::{Caller, OrganizationId, SessionId, WaitCondition, WaitSeconds};
use greenroom_store::{Session, SessionState};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{Error, Greenroom};

/// Minimum interval between two queries. A busy keeper reports hundreds of changes per second.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Additional wait before the next query, unless this process reports a change.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Interval at which each waiting request restarts the polling if it has ended.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);

/// All waiting requests of this process.
#[derive(Default)]
pub(crate) struct Waiters {
    state: Mutex<WaiterState>,
    /// Notified when this process has changed a session.
    changed: Notify,
}

#[derive(Default)]
struct WaiterState {
    by_number: HashMap<u64, Waiter>,
    next_number: u64,
    /// Whether the polling task is running.
    is_polled: bool,
}

struct Waiter {
    session: (OrganizationId, SessionId),
    condition: WaitCondition,
    settled: oneshot::Sender<()>,
}

/// Removes a waiter when it is dropped.
struct WaiterGuard<'a> {
    waiters: &'a Waiters,
    number: u64,
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.waiters.state().by_number.remove(&self.number);
    }
}

/// The polling task. Dropping it, also after a panic or the end of its runtime, marks the polling
/// as stopped, so that a waiting or new request starts another task.
struct Polling {
    greenroom: Greenroom,
    /// Whether `run` has cleared `is_polled` itself. Another task may have set it since.
    is_finished: bool,
}

impl Drop for Polling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("panicked while polling awaited sessions");
        }
        if !self.is_finished {
            self.greenroom.shared.waiters.state().is_polled = false;
        }
    }
}

impl Polling {
    /// Polls the awaited sessions until no waiter is left.
    async fn run(mut self) {
        loop {
            sleep(MIN_POLL_INTERVAL).await;
            let waiters = &self.greenroom.shared.waiters;
            let _ = timeout(POLL_INTERVAL, waiters.changed.notified()).await;
            let (sessions, end_number): (Vec<_>, u64) = {
                let mut state = waiters.state();
                if state.by_number.is_empty() {
                    // Under the lock, so that a request that comes now starts another task.
                    state.is_polled = false;
                    self.is_finished = true;
                    return;
                }
                let sessions = state.by_number.values().map(|waiter| waiter.session).collect();
                (sessions, state.next_number)
            };
            if let Err(error) = self.greenroom.notify_waiters(&sessions, end_number).await {
                tracing::warn!(
                    count = sessions.len(),
                    error = &error as &dyn std::error::Error,
                    "failed to poll awaited sessions"
                );
            }
        }
    }
}

impl Waiters {
    /// Polls the sessions without waiting for the next interval.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, WaiterState> {
        self.state.lock()
    }
}

impl Greenroom {
    /// Waits until a session that the caller may see meets `condition`, and returns the session.
    ///
    /// Also returns the session, as it is then, when it can no longer meet the condition, when
    /// `time_limit` has passed, or when its status or agent status is unknown to this version.
    /// `None` means that the caller may see no session with this id.
    ///
    /// All waiting calls of a process share one query, which runs four times per second, and up to
    /// twenty times per second while sessions change.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait and has no other effect.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database fails before or after the wait, and
    /// [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn wait_for_session(
        &self,
        caller: &Caller,
        id: SessionId,
        condition: WaitCondition,
        time_limit: WaitSeconds,
    ) -> Result<Option<Session>, Error> {
        let deadline = Instant::now() + Duration::from_secs(time_limit.get().into());
        let Some(session) = self.session(caller, id).await? else { return Ok(None) };
        if condition.is_settled(session.status, session.agent_status) {
            return Ok(Some(session));
        }
        let (settled, notified) = oneshot::channel();
        let guard = self.register_waiter(Waiter {
            session: (caller.organization_id, id),
            condition,
            settled,
        });
        self.wait_until_settled(deadline, notified).await;
        drop(guard);
        self.session(caller, id).await
    }

    fn register_waiter(&self, waiter: Waiter) -> WaiterGuard<'_> {
        let mut state = self.shared.waiters.state();
        let number = state.next_number;
        state.next_number += 1;
        state.by_number.insert(number, waiter);
        WaiterGuard { waiters: &self.shared.waiters, number }
    }

    /// Waits until the condition of a waiter is settled, at most until `deadline`. Polls meanwhile.
    async fn wait_until_settled(&self, deadline: Instant, mut notified: oneshot::Receiver<()>) {
        while Instant::now() < deadline {
            self.ensure_polled();
            let restart_at = deadline.min(Instant::now() + RESTART_INTERVAL);
            if timeout_at(restart_at, &mut notified).await.is_ok() {
                return;
            }
        }
    }

    /// Polls the awaited sessions, unless a task does so already. The task runs on the runtime of
    /// the service, because the runtime of this request may end before other requests.
    fn ensure_polled(&self) {
        if std::mem::replace(&mut self.shared.waiters.state().is_polled, true) {
            return;
        }
        let polling = Polling { greenroom: self.clone(), is_finished: false };
        self.shared.database.spawn(polling.run());
    }

    /// Notifies each waiter with a settled condition and a number below `end_number`. The query
    /// does not cover the sessions of later waiters.
    async fn notify_waiters(
        &self,
        sessions: &[(OrganizationId, SessionId)],
        end_number: u64,
    ) -> Result<(), Error> {
        let find = async |db: &mut _| SessionState::find_all(db, sessions).await;
        let found = self.shared.database.run(find).await?;
        let statuses: HashMap<_, _> = found
            .into_iter()
            .map(|session| {
                ((session.organization_id, session.id), (session.status, session.agent_status))
            })
            .collect();
        let mut state = self.shared.waiters.state();
        let settled = state.by_number.extract_if(|number, waiter| {
            // A session that no longer exists settles the wait.
            *number < end_number
                && statuses
                    .get(&waiter.session)
                    .is_none_or(|(status, agent)| waiter.condition.is_settled(*status, *agent))
        });
        for (_, waiter) in settled {
            // The receiver is gone if the wait has timed out.
            let _ = waiter.settled.send(());
        }
        Ok(())
    }
}
