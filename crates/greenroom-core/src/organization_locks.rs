//! Locks in memory that make the starts of one limited organization wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use greenroom_domain::OrganizationId;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use crate::Error;

type OrganizationLock = tokio::sync::Mutex<()>;

/// One lock per organization that is starting a session.
///
/// Starts of a limited organization also lock the organization's row in PostgreSQL. Starts that
/// waited there would occupy the connection pool, so they wait here before they take a connection.
#[derive(Default)]
pub(crate) struct OrganizationLocks(Mutex<HashMap<OrganizationId, Weak<OrganizationLock>>>);

impl OrganizationLocks {
    /// Waits for the organization's lock, which is released when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Overloaded`] if the lock is not free by `deadline`.
    pub(crate) async fn acquire(
        &self,
        organization: OrganizationId,
        deadline: Instant,
    ) -> Result<OwnedMutexGuard<()>, Error> {
        let lock = self.lock_of(organization);
        timeout_at(deadline, lock.lock_owned()).await.map_err(|_| Error::Overloaded)
    }

    fn lock_of(&self, organization: OrganizationId) -> Arc<OrganizationLock> {
        let mut locks = self.0.lock();
        if let Some(lock) = locks.get(&organization).and_then(Weak::upgrade) {
            return lock;
        }
        // Remove the locks that are no longer in use.
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(OrganizationLock::default());
        locks.insert(organization, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn lock_blocks_only_its_own_organization() {
        let (locks, soon) =
            (OrganizationLocks::default(), Instant::now() + Duration::from_millis(50));
        let (first, second) =
            (OrganizationId(Uuid::from_u128(1)), OrganizationId(Uuid::from_u128(2)));
        let guard = locks.acquire(first, soon).await.unwrap();
        assert!(matches!(locks.acquire(first, soon).await, Err(Error::Overloaded)));
        locks.acquire(second, soon).await.expect("the other organization is not locked");
        drop(guard);
        let later = Instant::now() + Duration::from_secs(1);
        locks.acquire(first, later).await.expect("the lock is released");
        locks.acquire(second, later).await.unwrap();
        assert_eq!(locks.0.lock().len(), 1, "unused locks are removed");
    }
}
