//! Limits per organization: active sessions, and starts per minute.

use std::collections::HashMap;
use std::time::Duration;

use greenroom_domain::{Caller, OrganizationId, SessionCount, StartsPerMinute};
use greenroom_store::{SessionLimit, organization};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::permitted;
use crate::organization_locks::OrganizationLocks;
use crate::{Admin, Error, Greenroom};

const MINUTE: Duration = Duration::from_mins(1);

/// The limits of an organization, and how much of them it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum number of `pending` and `active` sessions. `None` means no limit.
    pub max_active_sessions: Option<SessionCount>,
    /// Current number of `pending` and `active` sessions.
    pub active_sessions: i64,
    /// Maximum number of starts per minute in this process. `None` means no limit.
    pub starts_per_minute: Option<u32>,
    /// Number of starts that this process would accept now. `None` means no limit.
    pub starts_remaining: Option<u32>,
}

impl Greenroom {
    /// Returns the limits of the caller's organization, and how much of them it uses.
    ///
    /// # Errors
    ///
    /// Returns [`Error::BackendOnly`] if the caller is an end user, [`Error::Store`] if the database
    /// fails, and [`Error::Overloaded`] if no database connection becomes free in time.
    pub async fn limits(&self, caller: &Caller) -> Result<Limits, Error> {
        permitted(caller.may_read_limits())?;
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
}

impl Admin {
    /// Sets the maximum number of `pending` and `active` sessions of an organization.
    ///
    /// Takes an organization instead of a caller: no caller may set a limit, because a backend could
    /// otherwise raise its own.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Store`] if the database fails, and [`Error::Overloaded`] if no database
    /// connection becomes free in time.
    pub async fn set_session_limit(
        &self,
        organization: OrganizationId,
        limit: SessionLimit,
    ) -> Result<(), Error> {
        let set = async |db: &mut _| organization::set_limit(db, organization, limit).await;
        self.database.run(set).await
    }
}

/// The limits of all organizations, as far as this process knows and enforces them.
pub(crate) struct StartLimits {
    /// Maximum number of `pending` and `active` sessions of an organization without its own limit.
    pub(crate) max_active_sessions: Option<SessionCount>,
    pub(crate) start_rate: Option<StartRate>,
    pub(crate) limited_organizations: LimitedOrganizations,
    pub(crate) organization_locks: OrganizationLocks,
}

impl StartLimits {
    pub(crate) fn new(
        max_active_sessions: Option<SessionCount>,
        starts_per_minute: Option<StartsPerMinute>,
    ) -> Self {
        Self {
            max_active_sessions,
            start_rate: starts_per_minute.map(|starts| StartRate::new(starts.get())),
            limited_organizations: LimitedOrganizations::default(),
            organization_locks: OrganizationLocks::default(),
        }
    }
}

/// The organizations that had a limit of active sessions within the last minute. Their starts lock
/// the organization first; the starts of all others need no lock.
#[derive(Default)]
pub(crate) struct LimitedOrganizations(Mutex<ExpiryMap>);

impl LimitedOrganizations {
    pub(crate) fn contains(&self, organization: OrganizationId) -> bool {
        let expiry = self.0.lock();
        expiry.get(organization).is_some_and(|until| until > Instant::now())
    }

    pub(crate) fn insert(&self, organization: OrganizationId) {
        let now = Instant::now();
        self.0.lock().set(organization, now + MINUTE, now);
    }

    pub(crate) fn remove(&self, organization: OrganizationId) {
        self.0.lock().at.remove(&organization);
    }
}

/// The rate limit of starts: a token bucket per organization. A bucket holds the starts of one
/// minute and refills evenly.
///
/// The crate `governor` counts in the same way, but cannot report the remaining starts without
/// consuming one.
pub(crate) struct StartRate {
    per_minute: u32,
    /// Time in which a bucket refills by one start.
    interval: Duration,
    /// When each bucket will be full. A full bucket need not be stored.
    full_at: Mutex<ExpiryMap>,
}

impl StartRate {
    pub(crate) fn new(per_minute: u32) -> Self {
        let per_minute = per_minute.max(1);
        Self { per_minute, interval: MINUTE / per_minute, full_at: Mutex::default() }
    }

    /// Takes one start from the bucket.
    pub(crate) fn take(&self, organization: OrganizationId, now: Instant) -> Result<(), Error> {
        let mut full_at = self.full_at.lock();
        let full = full_at.get(organization).map_or(now, |full| full.max(now));
        let after = full + self.interval;
        let retry_after = (after - now).saturating_sub(MINUTE);
        if !retry_after.is_zero() {
            let (per_minute, reset_after) = (self.per_minute, full - now);
            return Err(Error::RateLimited { per_minute, retry_after, reset_after });
        }
        full_at.set(organization, after, now);
        Ok(())
    }

    fn remaining(&self, organization: OrganizationId, now: Instant) -> u32 {
        let full_at = self.full_at.lock();
        let full = full_at.get(organization).map_or(now, |full| full.max(now));
        let available = MINUTE.saturating_sub(full - now).as_nanos();
        let starts = available / self.interval.as_nanos().max(1);
        u32::try_from(starts).map_or(self.per_minute, |starts| starts.min(self.per_minute))
    }
}

/// A time per organization. At most once per minute, an insert removes the times that have passed,
/// so that the map only contains the organizations of the last minutes.
struct ExpiryMap {
    at: HashMap<OrganizationId, Instant>,
    swept_at: Instant,
}

impl Default for ExpiryMap {
    fn default() -> Self {
        Self { at: HashMap::new(), swept_at: Instant::now() }
    }
}

impl ExpiryMap {
    fn get(&self, organization: OrganizationId) -> Option<Instant> {
        self.at.get(&organization).copied()
    }

    fn set(&mut self, organization: OrganizationId, at: Instant, now: Instant) {
        if now.saturating_duration_since(self.swept_at) >= MINUTE {
            self.at.retain(|_, at| *at > now);
            self.at.shrink_to_fit();
            self.swept_at = now;
        }
        self.at.insert(organization, at);
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
        let (rate, start) = (StartRate::new(6), Instant::now());
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
        let (rate, start) = (StartRate::new(600), Instant::now());
        for number in 0..20_000 {
            rate.take(organization(number), start).unwrap();
        }
        rate.take(organization(7), start + Duration::from_mins(1)).unwrap();
        let full_at = rate.full_at.lock();
        assert_eq!(full_at.at.len(), 1);
        assert!(full_at.at.capacity() < 1_000, "{}", full_at.at.capacity());
    }

    #[test]
    fn limited_organization_is_remembered_until_it_is_removed() {
        let limited = LimitedOrganizations::default();
        assert!(!limited.contains(organization(1)));
        limited.insert(organization(1));
        assert!(limited.contains(organization(1)) && !limited.contains(organization(2)));
        limited.remove(organization(1));
        assert!(!limited.contains(organization(1)));
    }
}
