//! OrganizationLocks: starts of an organization with a limit wait for one another here, without a connection each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use greenroom_domain::OrganizationId;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use crate::Error;

type OrganizationLock = tokio::sync::Mutex<()>;

/// Who writes a session of which organization.
///
/// PostgreSQL makes those of one organization wait for its row anyway. Those that wait there hold the
/// process's connections, which the starts of all others need.
#[derive(Default)]
pub(crate) struct OrganizationLocks(Mutex<HashMap<OrganizationId, Weak<OrganizationLock>>>);

impl OrganizationLocks {
    /// This organization's turn, which ends when the guard is dropped.
    pub(crate) async fn wait(
        &self,
        organization: OrganizationId,
        deadline: Instant,
    ) -> Result<OwnedMutexGuard<()>, Error> {
        let turn = self.of(organization);
        timeout_at(deadline, turn.lock_owned()).await.map_err(|_| Error::Overloaded)
    }

    fn of(&self, organization: OrganizationId) -> Arc<OrganizationLock> {
        let mut organization_locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = organization_locks.get(&organization).and_then(Weak::upgrade) {
            return turn;
        }
        // Nobody waits for those any more.
        organization_locks.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(OrganizationLock::default());
        organization_locks.insert(organization, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn one_organization_waits_for_itself_alone() {
        let (organization_locks, soon) =
            (OrganizationLocks::default(), Instant::now() + Duration::from_millis(50));
        let (mine, other) =
            (OrganizationId(Uuid::from_u128(1)), OrganizationId(Uuid::from_u128(2)));
        let first = organization_locks.wait(mine, soon).await.unwrap();
        assert!(matches!(organization_locks.wait(mine, soon).await, Err(Error::Overloaded)));
        organization_locks.wait(other, soon).await.expect("nobody else waits for it");
        drop(first);
        let later = Instant::now() + Duration::from_secs(1);
        organization_locks.wait(mine, later).await.expect("its turn is over");
        organization_locks.wait(other, later).await.unwrap();
        assert_eq!(
            organization_locks.0.lock().unwrap().len(),
            1,
            "those that are over are forgotten"
        );
    }
}
