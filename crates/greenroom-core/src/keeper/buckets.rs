//! Holds this process's share of the buckets of sessions.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use greenroom_domain::Bucket;
use greenroom_store::bucket::{self, BUCKET_LEASE};
use greenroom_store::claim::tracked_sessions;
use greenroom_store::{HeldBuckets, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::is_first_failure;
use super::schedule::MAX_WAITING;
use crate::{Error, Greenroom};

/// Interval between two renewals of the lease.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between two attempts to take buckets while this process has less than its share.
const ACQUISITION_INTERVAL: Duration = Duration::from_millis(250);

/// Time for which a renewed lease is used: shorter than [`BUCKET_LEASE`], so that this process stops
/// before another one begins.
const LEASE_USE: Duration = Duration::from_secs(5);

const _: () = assert!(LEASE_USE.as_secs() < BUCKET_LEASE.num_seconds().unsigned_abs());

/// Interval between two searches for sessions that this process holds but does not know.
const SEARCH_INTERVAL: Duration = Duration::from_mins(1);

/// The buckets that this process holds.
pub(crate) struct Buckets {
    state: Mutex<State>,
    /// Wakes the search for the sessions of new buckets.
    acquired: Notify,
}

struct State {
    held: Arc<HeldBuckets>,
    valid_until: Instant,
    /// The number of processes that run a keeper, at least one.
    replicas: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        let state = State { held: Arc::default(), valid_until: Instant::now(), replicas: 1 };
        Self { state: Mutex::new(state), acquired: Notify::new() }
    }
}

impl Buckets {
    /// Returns the buckets that this process holds: none if the lease was not renewed in time.
    pub(super) fn held(&self) -> Arc<HeldBuckets> {
        let state = self.state.lock();
        if Instant::now() < state.valid_until { state.held.clone() } else { Arc::default() }
    }

    /// Returns the number of processes that run a keeper, at least one.
    pub(crate) fn replicas(&self) -> usize {
        self.state.lock().replicas
    }

    /// Returns whether this process holds clearly less than its share.
    fn is_short(&self) -> bool {
        self.held().len() < usize::from(Bucket::COUNT) / self.replicas()
    }

    fn set(&self, held: HeldBuckets, replicas: usize, renewed_at: Instant) {
        *self.state.lock() =
            State { held: Arc::new(held), valid_until: renewed_at + LEASE_USE, replicas };
    }
}

/// The share of each of `replicas` processes, rounded up.
fn share(replicas: usize) -> usize {
    usize::from(Bucket::COUNT).div_ceil(replicas)
}

impl Greenroom {
    /// Renews the lease of this process and takes or releases buckets, until the future is dropped.
    pub(super) async fn hold_buckets(&self, replica: ReplicaId) {
        let mut is_failing = false;
        loop {
            let balanced = AssertUnwindSafe(self.balance_buckets(replica)).catch_unwind().await;
            match balanced {
                Err(_) => tracing::error!("panicked while renewing lease of buckets"),
                Ok(balanced) => {
                    let is_first = is_first_failure(&balanced, &mut is_failing);
                    if let (Err(error), true) = (&balanced, is_first) {
                        tracing::warn!(
                            error = error as &dyn std::error::Error,
                            "failed to renew lease of buckets"
                        );
                    }
                }
            }
            let is_short = self.shared.buckets.is_short();
            sleep(if is_short { ACQUISITION_INTERVAL } else { RENEWAL_INTERVAL }).await;
        }
    }

    async fn balance_buckets(&self, replica: ReplicaId) -> Result<(), Error> {
        let database = &self.shared.database;
        let renewed_at = Instant::now();
        let renew = async |db: &mut _| {
            Ok((bucket::renew(db, replica).await?, bucket::count_replicas(db).await?.max(1)))
        };
        let (mut held, replicas) = database.run_for_keeper(renew).await?;
        let share = share(replicas);
        let surplus: Vec<_> = held.keys().skip(share).copied().collect();
        held.retain(|bucket, _| !surplus.contains(bucket));
        let missing = share - held.len();
        // Stop checking the sessions of surplus buckets before they are released.
        self.shared.buckets.set(held.clone(), replicas, renewed_at);
        self.shared.schedule.retain(&held);
        if !surplus.is_empty() {
            let release = async |db: &mut _| bucket::release(db, replica, &surplus).await;
            database.run_for_keeper(release).await?;
        }
        if missing > 0 {
            let acquire = async |db: &mut _| bucket::acquire(db, replica, missing).await;
            let acquired = database.run_for_keeper(acquire).await?;
            if !acquired.is_empty() {
                held.extend(acquired);
                self.shared.buckets.set(held, replicas, renewed_at);
                self.shared.buckets.acquired.notify_one();
            }
        }
        Ok(())
    }

    /// Searches the held buckets for sessions that this process does not know, when it takes buckets
    /// and once a minute, until the future is dropped.
    pub(super) async fn track_sessions(&self) {
        let mut is_failing = false;
        loop {
            let acquired = self.shared.buckets.acquired.notified();
            drop(timeout(SEARCH_INTERVAL, acquired).await);
            let tracked = self.search_sessions().await;
            let is_first = is_first_failure(&tracked, &mut is_failing);
            if let (Err(error), true) = (&tracked, is_first) {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "failed to search for sessions to check");
            }
        }
    }

    async fn search_sessions(&self) -> Result<(), Error> {
        let held = self.shared.buckets.held();
        let search = async |db: &mut _| {
            let missing = bucket::restore_missing(db).await?;
            Ok((tracked_sessions(db, &held, MAX_WAITING).await?, missing))
        };
        let (keys, missing) = self.shared.database.run_for_keeper(search).await?;
        if missing > 0 {
            tracing::warn!(count = missing, "restored missing buckets");
        }
        self.shared.schedule.track(keys, self.shared.reconcile_interval());
        Ok(())
    }

    /// Ends the lease, so that another process may take the buckets at once.
    pub(super) async fn retire(&self, replica: ReplicaId) {
        let retire = async |db: &mut _| bucket::retire(db, replica).await;
        if let Err(error) = self.shared.database.run_for_keeper(retire).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "failed to release buckets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_buckets() {
        for replicas in 1..=1_100 {
            assert!(share(replicas) * replicas >= usize::from(Bucket::COUNT));
        }
        assert_eq!((share(1), share(2), share(3)), (1_024, 512, 342));
    }
}
