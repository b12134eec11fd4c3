//! Waiting for a session to become something: many wait, one query looks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greenroom_domain::{Awaited, Caller, OrganizationId, SessionId};
use greenroom_store::{Session, SessionStanding};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{Error, Greenroom};

/// The least between two looks: a keeper at work tells of changes hundreds of times a second.
const BREATH: Duration = Duration::from_millis(50);

/// How much longer until the next, when nothing in this process says that something has changed.
const TICK: Duration = Duration::from_millis(200);

/// Everybody who waits in this process.
#[derive(Default)]
pub(crate) struct Waits {
    waiting: Mutex<Waiting>,
    /// Something has changed: whoever waits is told without waiting for the tick.
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    by_number: HashMap<u64, Wait>,
    next_number: u64,
    /// Whether a task is looking.
    is_watched: bool,
}

struct Wait {
    session: (OrganizationId, SessionId),
    awaited: Awaited,
    settled: oneshot::Sender<()>,
}

/// One's place among those who wait; dropped, it is given up.
struct Place<'a> {
    waits: &'a Waits,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waits.waiting().by_number.remove(&self.number);
    }
}

impl Waits {
    /// Looks at the next opportunity rather than at the next tick.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Greenroom {
    /// A session the caller may see, once it is what they wait for, can no longer become so, or
    /// `patience` has run out. None when there is no such session.
    ///
    /// However many wait in a process, one query every quarter of a second looks for them all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_once(
        &self,
        caller: &Caller,
        id: SessionId,
        awaited: Awaited,
        patience: Duration,
    ) -> Result<Option<Session>, Error> {
        let until = Instant::now() + patience;
        let Some(session) = self.session(caller, id).await? else { return Ok(None) };
        if awaited.is_settled(session.status, session.agent_status) {
            return Ok(Some(session));
        }
        let (settled, told) = oneshot::channel();
        let place = self.wait(Wait { session: (caller.organization_id, id), awaited, settled });
        // Time that runs out is no failure: the session is told as it is.
        let _ = timeout_at(until, told).await;
        drop(place);
        self.session(caller, id).await
    }

    fn wait(&self, wait: Wait) -> Place<'_> {
        let mut waiting = self.shared.waits.waiting();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.by_number.insert(number, wait);
        if !std::mem::replace(&mut waiting.is_watched, true) {
            tokio::spawn(self.clone().watch());
        }
        Place { waits: &self.shared.waits, number }
    }

    /// Looks for as long as somebody waits.
    async fn watch(self) {
        loop {
            sleep(BREATH).await;
            let _ = timeout(TICK, self.shared.waits.changed.notified()).await;
            let (sessions, asked_before): (Vec<_>, u64) = {
                let mut waiting = self.shared.waits.waiting();
                if waiting.by_number.is_empty() {
                    waiting.is_watched = false;
                    return;
                }
                let sessions = waiting.by_number.values().map(|wait| wait.session).collect();
                (sessions, waiting.next_number)
            };
            if let Err(error) = self.tell_waiting(&sessions, asked_before).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the sessions that are waited for could not be looked at"
                );
            }
        }
    }

    /// Tells those whose wait began before this number: the others were not looked for.
    async fn tell_waiting(
        &self,
        sessions: &[(OrganizationId, SessionId)],
        asked_before: u64,
    ) -> Result<(), Error> {
        let look = async |db: &mut _| SessionStanding::of(db, sessions).await;
        let standings = self.shared.database.run(look).await?;
        let standings: HashMap<_, _> = standings
            .into_iter()
            .map(|one| ((one.organization_id, one.id), (one.status, one.agent_status)))
            .collect();
        let mut waiting = self.shared.waits.waiting();
        let settled = waiting.by_number.extract_if(|number, wait| {
            // One that is no longer there is nothing to wait for.
            *number < asked_before
                && standings
                    .get(&wait.session)
                    .is_none_or(|(status, agent)| wait.awaited.is_settled(*status, *agent))
        });
        for (_, wait) in settled {
            // Whoever no longer waits is not told.
            let _ = wait.settled.send(());
        }
        Ok(())
    }
}
