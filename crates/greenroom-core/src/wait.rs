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
    /// Also returns the session, as it is then, when it can no longer meet the condition or when
    /// `time_limit` has passed. `None` means that the caller may see no session with this id.
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
        // A time-out is not an error: the session is returned as it is.
        let _ = timeout_at(deadline, notified).await;
        drop(guard);
        self.session(caller, id).await
    }

    fn register_waiter(&self, waiter: Waiter) -> WaiterGuard<'_> {
        let mut state = self.shared.waiters.state();
        let number = state.next_number;
        state.next_number += 1;
        state.by_number.insert(number, waiter);
        if !std::mem::replace(&mut state.is_polled, true) {
            tokio::spawn(self.clone().poll_waiters());
        }
        WaiterGuard { waiters: &self.shared.waiters, number }
    }

    /// Polls the awaited sessions until no waiter is left.
    async fn poll_waiters(self) {
        loop {
            sleep(MIN_POLL_INTERVAL).await;
            let _ = timeout(POLL_INTERVAL, self.shared.waiters.changed.notified()).await;
            let (sessions, end_number): (Vec<_>, u64) = {
                let mut state = self.shared.waiters.state();
                if state.by_number.is_empty() {
                    state.is_polled = false;
                    return;
                }
                let sessions = state.by_number.values().map(|waiter| waiter.session).collect();
                (sessions, state.next_number)
            };
            if let Err(error) = self.notify_waiters(&sessions, end_number).await {
                tracing::warn!(
                    count = sessions.len(),
                    error = &error as &dyn std::error::Error,
                    "failed to poll awaited sessions"
                );
            }
        }
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
