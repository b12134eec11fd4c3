//! [`StartRate`], the limit of starts per minute.

use std::time::Duration;

use greenroom_domain::{OrganizationId, StartsPerMinute};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::expiry::ExpiryMap;
use crate::Error;

/// A bucket holds the starts of this time.
const BUCKET_SIZE: Duration = Duration::from_mins(1);

/// The rate limit of starts: a token bucket per organization. A bucket holds the starts of one
/// minute and refills evenly.
///
/// The crate `governor` counts in the same way, but cannot report the remaining starts without
/// consuming one.
pub(crate) struct StartRate {
    pub(super) per_minute: StartsPerMinute,
    /// Time in which a bucket refills by one start.
    interval: Duration,
    /// When each bucket will be full. A full bucket need not be stored.
    full_at: Mutex<ExpiryMap>,
}

impl StartRate {
    pub(super) fn new(per_minute: StartsPerMinute) -> Self {
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

    pub(super) fn remaining(&self, organization: OrganizationId, now: Instant) -> u32 {
        let full_at = self.full_at.lock();
        let full = full_at.get(organization).map_or(now, |full| full.max(now));
        let available = BUCKET_SIZE.saturating_sub(full - now).as_nanos();
        let (starts, maximum) = (available / self.interval.as_nanos(), self.per_minute.get());
        u32::try_from(starts).map_or(maximum, |starts| starts.min(maximum))
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
}
