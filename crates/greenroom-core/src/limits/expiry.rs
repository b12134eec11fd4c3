//! [`ExpiryMap`], a time per organization.

use std::collections::HashMap;
use std::time::Duration;

use greenroom_domain::OrganizationId;
use tokio::time::Instant;

/// Minimum interval between two removals of expired entries.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// The time at which each organization's entry expires. An insert removes expired entries, at most
/// once per [`SWEEP_INTERVAL`], so that the map only contains the organizations of the last
/// minutes.
pub(super) struct ExpiryMap {
    expires_at: HashMap<OrganizationId, Instant>,
    swept_at: Instant,
}

impl Default for ExpiryMap {
    fn default() -> Self {
        Self { expires_at: HashMap::new(), swept_at: Instant::now() }
    }
}

impl ExpiryMap {
    pub(super) fn get(&self, organization: OrganizationId) -> Option<Instant> {
        self.expires_at.get(&organization).copied()
    }

    pub(super) fn set(&mut self, organization: OrganizationId, expires_at: Instant, now: Instant) {
        if now.saturating_duration_since(self.swept_at) >= SWEEP_INTERVAL {
            self.expires_at.retain(|_, expires_at| *expires_at > now);
            self.expires_at.shrink_to_fit();
            self.swept_at = now;
        }
        self.expires_at.insert(organization, expires_at);
    }

    pub(super) fn remove(&mut self, organization: OrganizationId) {
        self.expires_at.remove(&organization);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn expired_entries_are_removed() {
        let mut map = ExpiryMap::default();
        let start = Instant::now();
        for number in 0..20_000 {
            let expires_at = start + Duration::from_millis(100);
            map.set(OrganizationId(Uuid::from_u128(number)), expires_at, start);
        }
        let later = start + Duration::from_mins(1);
        map.set(OrganizationId(Uuid::from_u128(7)), later + Duration::from_millis(100), later);
        assert_eq!(map.expires_at.len(), 1);
        let capacity = map.expires_at.capacity();
        assert!(capacity < 1_000, "{capacity}");
    }
}
