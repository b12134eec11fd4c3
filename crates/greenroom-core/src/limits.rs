//! Limits per organization: open sessions, and starts per minute.

mod expiry;
mod rate;
mod recent;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use greenroom_domain::{Caller, OrganizationId, PoolSize, SessionCount, StartsPerMinute};
use greenroom_store::{SessionLimit, SessionLock, StoreError, open_sessions, organization};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use self::rate::StartRate;
use self::recent::RecentOrganizations;
use crate::batch_queue::MAX_IN_FLIGHT;
use crate::error::require_permission;
use crate::start::{KeyedStarts, OpenedQueue, OrganizationQueues, StartQueue};
use crate::{Admin, Error, Greenroom};

/// Time for which an organization counts as limited after a start has found, or assumed, its limit.
const LIMITED_FOR: Duration = Duration::from_mins(1);

/// Time for which the starts with a key of an organization are inserted outside the queue after one of
/// its keys was locked.
const LOCKING_FOR: Duration = Duration::from_secs(5);

/// Time limit of the wait for transactions that write sessions. Longer than a statement, which
/// PostgreSQL cancels after 5 s, and the time in which an abandoned statement is settled.
const WRITERS_TIMEOUT: Duration = Duration::from_secs(15);

/// Interval between two queries for the transactions that write sessions.
const WRITERS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The limits of an organization and their current usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum number of open sessions (`pending` or `active`). `None` means no limit.
    pub max_active_sessions: Option<SessionCount>,
    /// Current number of open sessions.
    pub active_sessions: i64,
    /// Maximum number of starts per minute in this process. `None` means no limit.
    pub starts_per_minute: Option<StartsPerMinute>,
    /// Number of starts that this process would accept now. `None` means no limit.
    pub starts_remaining: Option<u32>,
}

impl Greenroom {
    /// Returns the limits of the caller's organization and their current usage.
    ///
    /// # Errors
    ///
    /// Returns [`Error::BackendOnly`] if the caller is an end user, [`Error::Store`] if the database
    /// fails, and [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn limits(&self, caller: &Caller) -> Result<Limits, Error> {
        require_permission(caller.may_read_limits())?;
        let organization = caller.organization_id;
        let default = self.shared.limits.max_active_sessions;
        let usage = async |db: &mut _| organization::usage(db, organization, default).await;
        let (max_active_sessions, active_sessions) = self.shared.database.run(usage).await?;
        let rate = self.shared.limits.start_rate.as_ref();
        Ok(Limits {
            max_active_sessions,
            active_sessions,
            starts_per_minute: rate.map(|rate| rate.per_minute),
            starts_remaining: rate.map(|rate| rate.remaining(organization, Instant::now())),
        })
    }

    /// Remembers whether the organization's starts need a lock. Begins the count of its open sessions
    /// in the background if the start had to count them.
    pub(crate) fn remember_limit(&self, lock: &SessionLock) {
        let (limited, organization) =
            (&self.shared.limits.limited_organizations, lock.organization());
        if lock.is_required() {
            limited.insert(organization);
        } else {
            limited.remove(organization);
        }
        if lock.needs_count() && self.shared.limits.counting.lock().insert(organization) {
            let counting = Counting { greenroom: self.clone(), organization };
            self.shared.database.spawn(counting.run());
        }
    }
}

/// An entry in [`StartLimits::counting`], which is removed when the value is dropped.
struct Counting {
    greenroom: Greenroom,
    organization: OrganizationId,
}

impl Counting {
    /// Begins the count of the organization's open sessions. After a failure, a later start tries
    /// again.
    async fn run(self) {
        let unfinished = "a transaction that writes sessions without counting them is still open";
        let counted = self.greenroom.admin().count(self.organization, unfinished).await;
        if let Err(error) = counted {
            tracing::warn!(organization_id = %self.organization,
                error = &error as &dyn std::error::Error, "failed to begin count of open sessions");
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.greenroom.shared.limits.counting.lock().remove(&self.organization);
    }
}

impl Admin {
    /// Sets the maximum number of open sessions (`pending` or `active`) of an organization.
    ///
    /// Takes an organization instead of a caller: no caller may set a limit, because a backend could
    /// otherwise raise its own.
    ///
    /// Waits for the starts in progress, which may have read the previous limit: after this method
    /// returns, no start exceeds the new limit. It gives up 15 seconds after the limit was set.
    /// Then counts the open sessions, so that later starts need not count them.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database fails, or if a start is still in progress after the
    /// wait; the limit is then set, and the call can be repeated. Returns [`Error::Overloaded`] if no
    /// database connection becomes free in time; the limit may then be set.
    pub async fn set_session_limit(
        &self,
        organization: OrganizationId,
        limit: SessionLimit,
    ) -> Result<(), Error> {
        let set = async |db: &mut _| organization::set_limit(db, organization, limit).await;
        self.database.run(set).await?;
        let unfinished = "the limit is set, but a start that may have read the previous limit is \
                          still in progress; set the limit again to wait for it";
        match limit {
            SessionLimit::Unlimited => Ok(()),
            SessionLimit::Default => self.wait_for_session_writers(unfinished).await,
            SessionLimit::AtMost(_) => self.count(organization, unfinished).await,
        }
    }

    /// Begins the count of an organization's open sessions, after which its starts need not count
    /// them. `unfinished` is the error if a transaction that writes sessions stays open.
    async fn count(
        &self,
        organization: OrganizationId,
        unfinished: &'static str,
    ) -> Result<(), Error> {
        let begin = async |db: &mut _| open_sessions::begin(db, organization).await;
        let Some(count) = self.database.run(begin).await? else { return Ok(()) };
        self.wait_for_session_writers(unfinished).await?;
        let finish = async |db: &mut _| open_sessions::finish(db, count).await;
        self.database.run(finish).await
    }

    /// Waits until the transactions that are writing sessions now are over.
    async fn wait_for_session_writers(&self, unfinished: &'static str) -> Result<(), Error> {
        let deadline = Instant::now() + WRITERS_TIMEOUT;
        let read = async |db: &mut _| organization::session_writers(db).await;
        let mut writers = self.database.run(read).await?;
        while !writers.is_empty() {
            if Instant::now() >= deadline {
                return Err(StoreError::Timeout(unfinished.into()).into());
            }
            sleep(WRITERS_POLL_INTERVAL).await;
            let current = self.database.run(read).await?;
            writers.retain(|writer| current.contains(writer));
        }
        Ok(())
    }
}

/// Limits and locks that a start needs in this process.
pub(crate) struct StartLimits {
    /// Maximum number of open sessions of an organization without its own limit.
    pub(crate) max_active_sessions: Option<SessionCount>,
    pub(crate) start_rate: Option<StartRate>,
    /// Organizations that have, or may have, a limit of open sessions, or whose sessions are counted. A
    /// start in such an organization locks it first. Other starts take no lock.
    pub(crate) limited_organizations: RecentOrganizations,
    /// Organizations with a locked key. Their starts with a key are inserted outside the queue.
    pub(crate) locking_organizations: RecentOrganizations,
    /// Organizations whose count of open sessions this process is beginning.
    counting: Mutex<HashSet<OrganizationId>>,
    /// The starts of organizations that need no lock.
    pub(crate) start_queue: Arc<StartQueue>,
    pub(crate) organization_queues: OrganizationQueues,
    pub(crate) keyed_starts: KeyedStarts,
    pub(crate) opened_queue: Arc<OpenedQueue>,
    /// Permits for inserts that lock their organization's row: half of the connections, because they may
    /// wait for other replicas.
    pub(crate) locking_inserts: Semaphore,
    /// Permits for the writes of starts that wait for a locked key or session: a quarter of the
    /// connections, because they may wait for seconds.
    pub(crate) lock_waits: Semaphore,
}

impl StartLimits {
    pub(crate) fn new(
        max_active_sessions: Option<SessionCount>,
        starts_per_minute: Option<StartsPerMinute>,
        pool: PoolSize,
    ) -> Self {
        Self {
            max_active_sessions,
            start_rate: starts_per_minute.map(StartRate::new),
            limited_organizations: RecentOrganizations::new(LIMITED_FOR),
            locking_organizations: RecentOrganizations::new(LOCKING_FOR),
            counting: Mutex::default(),
            start_queue: StartQueue::new(None, MAX_IN_FLIGHT),
            organization_queues: OrganizationQueues::default(),
            keyed_starts: KeyedStarts::default(),
            opened_queue: OpenedQueue::new((), MAX_IN_FLIGHT),
            locking_inserts: Semaphore::new((usize::from(pool.get()) / 2).max(1)),
            lock_waits: Semaphore::new((usize::from(pool.get()) / 4).max(1)),
        }
    }
}
