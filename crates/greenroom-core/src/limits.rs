//! Limits per organization: open sessions, and starts per minute.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use greenroom_domain::{Caller, OrganizationId, PoolSize, SessionCount, StartsPerMinute};
use greenroom_store::{SessionLimit, SessionLock, StoreError, open_sessions, organization};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::error::require_permission;
use crate::start::{KeyedStarts, OrganizationQueues, StartQueue};
use crate::{Admin, Error, Greenroom};

/// A bucket holds the starts of this time.
const BUCKET_SIZE: Duration = Duration::from_mins(1);

/// Minimum interval between two removals of expired entries.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

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
    /// Permits for inserts that lock their organization's row: half of the connections, because they may
    /// wait for other replicas.
    pub(crate) locking_inserts: Semaphore,
    /// Permits for inserts that wait for a locked key: a quarter of the connections, because they
    /// may wait for seconds.
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
            start_queue: StartQueue::new(None),
            organization_queues: OrganizationQueues::default(),
            keyed_starts: KeyedStarts::default(),
            locking_inserts: Semaphore::new((usize::from(pool.get()) / 2).max(1)),
            lock_waits: Semaphore::new((usize::from(pool.get()) / 4).max(1)),
        }
    }
}

/// Organizations about which something was found out recently.
pub(crate) struct RecentOrganizations {
    expiry: Mutex<ExpiryMap>,
    /// Time after which an entry expires.
    lifetime: Duration,
}

impl RecentOrganizations {
    fn new(lifetime: Duration) -> Self {
        Self { expiry: Mutex::default(), lifetime }
    }

    pub(crate) fn contains(&self, organization: OrganizationId) -> bool {
        let expiry = self.expiry.lock();
        expiry.get(organization).is_some_and(|until| until > Instant::now())
    }

    pub(crate) fn insert(&self, organization: OrganizationId) {
        let now = Instant::now();
        self.expiry.lock().set(organization, now + self.lifetime, now);
    }

    pub(crate) fn remove(&self, organization: OrganizationId) {
        self.expiry.lock().expires_at.remove(&organization);
    }
}

/// The rate limit of starts: a token bucket per organization. A bucket holds the starts of one
/// minute and refills evenly.
///
/// The crate `governor` counts in the same way, but cannot report the remaining starts without
/// consuming one.
pub(crate) struct StartRate {
    per_minute: StartsPerMinute,
    /// Time in which a bucket refills by one start.
    interval: Duration,
    /// When each bucket will be full. A full bucket need not be stored.
    full_at: Mutex<ExpiryMap>,
}

impl StartRate {
    pub(crate) fn new(per_minute: StartsPerMinute) -> Self {
        let interval = BUCKET_SIZE / per_minute.get();
        Self { per_minute, interval, full_at: Mutex::default() }
    }

    /// Takes one start from the bucket, or returns [`Error::RateLimited`] if it is empty.
    pub(crate) fn take(&self, organization: OrganizationId, now: Instant) -> Result<(), Error> {
        let mut full_at = self.full_at.lock();
        let full = full_at.get(organization).map_or(now, |full| full.max(now));
        let after = full + self.interval;
        let retry_after = (after - now).saturating_sub(BUCKET_SIZE);
        if !retry_after.is_zero() {
            let (per_minute, reset_after) = (self.per_minute.get(), full - now);
            return Err(Error::RateLimited { per_minute, retry_after, reset_after });
        }
        full_at.set(organization, after, now);
        Ok(())
    }

    fn remaining(&self, organization: OrganizationId, now: Instant) -> u32 {
        let full_at = self.full_at.lock();
        let full = full_at.get(organization).map_or(now, |full| full.max(now));
        let available = BUCKET_SIZE.saturating_sub(full - now).as_nanos();
        let (starts, maximum) = (available / self.interval.as_nanos(), self.per_minute.get());
        u32::try_from(starts).map_or(maximum, |starts| starts.min(maximum))
    }
}

/// The time at which each organization's entry expires. An insert removes expired entries, at most
/// once per [`SWEEP_INTERVAL`], so that the map only contains the organizations of the last
/// minutes.
struct ExpiryMap {
    expires_at: HashMap<OrganizationId, Instant>,
    swept_at: Instant,
}

impl Default for ExpiryMap {
    fn default() -> Self {
        Self { expires_at: HashMap::new(), swept_at: Instant::now() }
    }
}

impl ExpiryMap {
    fn get(&self, organization: OrganizationId) -> Option<Instant> {
        self.expires_at.get(&organization).copied()
    }

    fn set(&mut self, organization: OrganizationId, expires_at: Instant, now: Instant) {
        if now.saturating_duration_since(self.swept_at) >= SWEEP_INTERVAL {
            self.expires_at.retain(|_, expires_at| *expires_at > now);
            self.expires_at.shrink_to_fit();
            self.swept_at = now;
        }
        self.expires_at.insert(organization, expires_at);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn organization(number: u128) -> OrganizationId {
        OrganizationId(Uuid::from_u128(number))
    }

    #[test]
    fn bucket_holds_the_starts_of_one_minute_and_refills_evenly() {
        let rate = StartRate::new(StartsPerMinute::constant::<6>());
        let start = Instant::now();
        let organization_1 = organization(1);
        for taken in 0..6 {
            assert_eq!(rate.remaining(organization_1, start), 6 - taken);
            rate.take(organization_1, start).unwrap();
        }
        assert_eq!(rate.remaining(organization_1, start), 0);
        let refused = rate.take(organization_1, start + Duration::from_secs(4)).unwrap_err();
        let Error::RateLimited { per_minute, retry_after, reset_after } = refused else {
            panic!("{refused}")
        };
        assert_eq!((per_minute, retry_after.as_secs(), reset_after.as_secs()), (6, 6, 56));
        rate.take(organization_1, start + Duration::from_secs(10)).unwrap();
        rate.take(organization_1, start + Duration::from_secs(19)).unwrap_err();
        assert_eq!(
            rate.remaining(organization_1, start + Duration::from_mins(5)),
            6,
            "not more than its capacity"
        );
        assert_eq!(rate.remaining(organization(2), start), 6, "separate bucket");
    }

    #[test]
    fn full_buckets_are_removed() {
        let rate = StartRate::new(StartsPerMinute::constant::<600>());
        let start = Instant::now();
        for number in 0..20_000 {
            rate.take(organization(number), start).unwrap();
        }
        rate.take(organization(7), start + Duration::from_mins(1)).unwrap();
        let full_at = rate.full_at.lock();
        assert_eq!(full_at.expires_at.len(), 1);
        let capacity = full_at.expires_at.capacity();
        assert!(capacity < 1_000, "{capacity}");
    }

    #[test]
    fn limited_organization_is_remembered_until_it_is_removed() {
        let limited = RecentOrganizations::new(LIMITED_FOR);
        assert!(!limited.contains(organization(1)));
        limited.insert(organization(1));
        assert!(limited.contains(organization(1)) && !limited.contains(organization(2)));
        limited.remove(organization(1));
        assert!(!limited.contains(organization(1)));
    }
}
