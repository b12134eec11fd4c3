//! How much an organization may use.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use greenroom_domain::OrganizationId;
use greenroom_store::{SessionLimit, StoreError, connect, organization};
use tokio::time::Instant;

use crate::{Error, Greenroom};

const MINUTE: Duration = Duration::from_mins(1);

/// What an organization may use, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many sessions may be `pending` or `active` at once; none is any number.
    pub max_active_sessions: Option<i32>,
    /// How many are.
    pub active_sessions: i64,
    /// How many starts this process takes in a minute; none is any number.
    pub starts_per_minute: Option<u32>,
    /// How many it would take at once.
    pub starts_remaining: Option<u32>,
}

impl Greenroom {
    /// The limits of an organization, and how far it is from them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn limits(&self, organization: OrganizationId) -> Result<Limits, Error> {
        let default = self.shared.max_active_sessions;
        let usage = async |db: &mut _| organization::usage(db, organization, default).await;
        let (max_active_sessions, active_sessions) = self.shared.database.run(usage).await?;
        let rate = self.shared.start_rate.as_ref();
        Ok(Limits {
            max_active_sessions,
            active_sessions,
            starts_per_minute: rate.map(|rate| rate.per_minute),
            starts_remaining: rate.map(|rate| rate.left(organization, Instant::now())),
        })
    }
}

/// Sets how many sessions of an organization may live at once, in the database of this URL.
///
/// # Errors
/// When the database cannot be reached, or the limit is negative.
pub async fn set_session_limit(
    database_url: &str,
    organization: OrganizationId,
    limit: SessionLimit,
) -> Result<(), StoreError> {
    let mut connection = connect(database_url).await?;
    organization::set_limit(&mut connection, organization, limit).await
}

/// Which organizations have had a limit within the last minute: their starts lock first, and all
/// others pay nothing.
#[derive(Default)]
pub(crate) struct LimitedOrganizations(Mutex<ExpiryMap>);

impl LimitedOrganizations {
    pub(crate) fn contains(&self, organization: OrganizationId) -> bool {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.of(organization).is_some_and(|until| until > Instant::now())
    }

    pub(crate) fn insert(&self, organization: OrganizationId) {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(organization, now + MINUTE, now);
    }

    pub(crate) fn remove(&self, organization: OrganizationId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at.remove(&organization);
    }
}

/// How many starts an organization has left: a bucket that holds a minute's and fills evenly.
///
/// The crate `governor` counts the same way, but shows nobody what is left without taking of it.
pub(crate) struct StartRate {
    per_minute: u32,
    /// How soon one more has come in.
    every: Duration,
    /// When each bucket is full again. One that is full is as good as none.
    full_at: Mutex<ExpiryMap>,
}

impl StartRate {
    pub(crate) fn new(per_minute: u32) -> Self {
        let per_minute = per_minute.max(1);
        Self { per_minute, every: MINUTE / per_minute, full_at: Mutex::default() }
    }

    /// Takes one start.
    pub(crate) fn take(&self, organization: OrganizationId, now: Instant) -> Result<(), Error> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full = full_at.of(organization).map_or(now, |full| full.max(now));
        let after = full + self.every;
        let over = (after - now).saturating_sub(MINUTE);
        if !over.is_zero() {
            let per_minute = self.per_minute;
            return Err(Error::RateLimited { per_minute, next_in: over, all_in: full - now });
        }
        full_at.set(organization, after, now);
        Ok(())
    }

    fn left(&self, organization: OrganizationId, now: Instant) -> u32 {
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full = full_at.of(organization).map_or(now, |full| full.max(now));
        let left = MINUTE.saturating_sub(full - now).as_nanos() / self.every.as_nanos().max(1);
        u32::try_from(left).map_or(self.per_minute, |left| left.min(self.per_minute))
    }
}

/// A time for each organization, forgotten within a minute of its passing: however many come and go,
/// only those of the last minutes are kept.
struct ExpiryMap {
    at: HashMap<OrganizationId, Instant>,
    swept: Instant,
}

impl Default for ExpiryMap {
    fn default() -> Self {
        Self { at: HashMap::new(), swept: Instant::now() }
    }
}

impl ExpiryMap {
    fn of(&self, organization: OrganizationId) -> Option<Instant> {
        self.at.get(&organization).copied()
    }

    fn set(&mut self, organization: OrganizationId, at: Instant, now: Instant) {
        if now.saturating_duration_since(self.swept) >= MINUTE {
            self.at.retain(|_, at| *at > now);
            self.at.shrink_to_fit();
            self.swept = now;
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
    fn a_minutes_starts_may_come_at_once_and_more_come_in_evenly() {
        let (rate, begun) = (StartRate::new(6), Instant::now());
        let mine = organization(1);
        for taken in 0..6 {
            assert_eq!(rate.left(mine, begun), 6 - taken);
            rate.take(mine, begun).unwrap();
        }
        assert_eq!(rate.left(mine, begun), 0);
        let refused = rate.take(mine, begun + Duration::from_secs(4)).unwrap_err();
        let Error::RateLimited { per_minute, next_in, all_in } = refused else {
            panic!("{refused}")
        };
        assert_eq!((per_minute, next_in.as_secs(), all_in.as_secs()), (6, 6, 56));
        rate.take(mine, begun + Duration::from_secs(10)).unwrap();
        rate.take(mine, begun + Duration::from_secs(19)).unwrap_err();
        assert_eq!(rate.left(mine, begun + Duration::from_mins(5)), 6, "and no more than that");
        assert_eq!(rate.left(organization(2), begun), 6, "everybody has their own");
    }

    #[test]
    fn a_million_organizations_leave_nothing_behind() {
        let (rate, begun) = (StartRate::new(600), Instant::now());
        for number in 0..1_000_000 {
            rate.take(organization(number), begun).unwrap();
        }
        rate.take(organization(7), begun + Duration::from_mins(1)).unwrap();
        let full_at = rate.full_at.lock().unwrap();
        assert_eq!(full_at.at.len(), 1);
        assert!(full_at.at.capacity() < 1_000, "{}", full_at.at.capacity());
    }

    #[test]
    fn an_organization_with_a_limit_is_known_until_it_is_forgotten() {
        let limited = LimitedOrganizations::default();
        assert!(!limited.contains(organization(1)));
        limited.insert(organization(1));
        assert!(limited.contains(organization(1)) && !limited.contains(organization(2)));
        limited.remove(organization(1));
        assert!(!limited.contains(organization(1)));
    }
}
