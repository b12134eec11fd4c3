//! [`RecentOrganizations`], a set whose entries expire.

use std::time::Duration;

use greenroom_domain::OrganizationId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::expiry::ExpiryMap;

/// Organizations about which something was found out recently.
pub(crate) struct RecentOrganizations {
    expiry: Mutex<ExpiryMap>,
    /// Time after which an entry expires.
    lifetime: Duration,
}

impl RecentOrganizations {
    pub(super) fn new(lifetime: Duration) -> Self {
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
        self.expiry.lock().remove(organization);
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
    fn organization_is_remembered_until_it_is_removed() {
        let recent = RecentOrganizations::new(Duration::from_mins(1));
        assert!(!recent.contains(organization(1)));
        recent.insert(organization(1));
        assert!(recent.contains(organization(1)) && !recent.contains(organization(2)));
        recent.remove(organization(1));
        assert!(!recent.contains(organization(1)));
    }
}
