//! WaiterState for a session to become something: many wait, one query looks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greenroom_domain::{Caller, OrganizationId, SessionId, WaitCondition};
use greenroom_store::{Session, SessionState};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{Error, Greenroom};

/// The least between two looks: a keeper at work tells of changes hundreds of times a second.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How much longer until the next, when nothing in this process says that something has changed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Everybody who waits in this process.
#[derive(Default)]
pub(crate) struct Waiters {
    state: Mutex<WaiterState>,
    /// Something has changed: whoever waits is told without waiting for the tick.
    changed: Notify,
}

#[derive(Default)]
struct WaiterState {
    by_number: HashMap<u64, Waiter>,
    next_number: u64,
    /// Whether a task is looking.
    is_polled: bool,
}

struct Waiter {
    session: (OrganizationId, SessionId),
    condition: WaitCondition,
    settled: oneshot::Sender<()>,
}

/// One's place among those who wait; dropped, it is given up.
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
    /// Looks at the next opportunity rather than at the next tick.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, WaiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Greenroom {
    /// A session the caller may see, once it is what they wait for, can no longer become so, or
    /// `time_limit` has run out. None when there is no such session.
    ///
    /// However many wait in a process, one query every quarter of a second looks for them all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wait_for_session(
        &self,
        caller: &Caller,
        id: SessionId,
        condition: WaitCondition,
        time_limit: Duration,
    ) -> Result<Option<Session>, Error> {
        let until = Instant::now() + time_limit;
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
        // Time that runs out is no failure: the session is told as it is.
        let _ = timeout_at(until, notified).await;
        drop(guard);
        self.session(caller, id).await
    }

    fn register_waiter(&self, wait: Waiter) -> WaiterGuard<'_> {
        let mut state = self.shared.waiters.state();
        let number = state.next_number;
        state.next_number += 1;
        state.by_number.insert(number, wait);
        if !std::mem::replace(&mut state.is_polled, true) {
            tokio::spawn(self.clone().poll_waiters());
        }
        WaiterGuard { waiters: &self.shared.waiters, number }
    }

    /// Looks for as long as somebody waits.
    async fn poll_waiters(self) {
        loop {
            sleep(MIN_POLL_INTERVAL).await;
            let _ = timeout(POLL_INTERVAL, self.shared.waiters.changed.notified()).await;
            let (sessions, asked_before): (Vec<_>, u64) = {
                let mut state = self.shared.waiters.state();
                if state.by_number.is_empty() {
                    state.is_polled = false;
                    return;
                }
                let sessions = state.by_number.values().map(|wait| wait.session).collect();
                (sessions, state.next_number)
            };
            if let Err(error) = self.notify_waiters(&sessions, asked_before).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the sessions that are waited for could not be looked at"
                );
            }
        }
    }

    /// Tells those whose wait began before this number: the others were not looked for.
    async fn notify_waiters(
        &self,
        sessions: &[(OrganizationId, SessionId)],
        asked_before: u64,
    ) -> Result<(), Error> {
        let look = async |db: &mut _| SessionState::find_all(db, sessions).await;
        let states = self.shared.database.run(look).await?;
        let states: HashMap<_, _> = states
            .into_iter()
            .map(|one| ((one.organization_id, one.id), (one.status, one.agent_status)))
            .collect();
        let mut state = self.shared.waiters.state();
        let settled = state.by_number.extract_if(|number, wait| {
            // One that is no longer there is nothing to wait for.
            *number < asked_before
                && states
                    .get(&wait.session)
                    .is_none_or(|(status, agent)| wait.condition.is_settled(*status, *agent))
        });
        for (_, wait) in settled {
            // Whoever no longer waits is not told.
            let _ = wait.settled.send(());
        }
        Ok(())
    }
}
