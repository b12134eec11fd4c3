//! Holds this process's share of the buckets of sessions.

use std::sync::Arc;
use std::time::Duration;

use greenroom_domain::Bucket;
use greenroom_store::bucket::{self, BUCKET_LEASE, Renewal};
use greenroom_store::{HeldBuckets, ReplicaId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::failures::{FailureLog, caught};
use crate::{Error, Greenroom};

/// Interval between two renewals of the lease.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between two attempts to acquire buckets while this process holds less than its share.
const ACQUISITION_INTERVAL: Duration = Duration::from_millis(250);

/// Time for which this process uses a renewed lease. It is shorter than [`BUCKET_LEASE`], so that
/// this process stops before another one acquires the buckets.
const USABLE_LEASE: Duration = Duration::from_secs(5);

const _: () = assert!(USABLE_LEASE.as_secs() < BUCKET_LEASE.num_seconds().unsigned_abs());

/// Duration of an outage of LiveKit after which a replica releases its buckets to the others.
const CUT_OFF_AFTER: Duration = Duration::from_secs(20);

/// The buckets that this process holds.
pub(crate) struct Buckets {
    state: Mutex<State>,
    /// Wakes the search for the sessions of new buckets.
    pub(super) acquired: Notify,
}

struct State {
    /// The replica id of this process. `None` while its keeper does not run.
    replica: Option<ReplicaId>,
    held: Arc<HeldBuckets>,
    usable_until: Instant,
    /// The number of processes that run a keeper, at least one.
    replicas: usize,
    /// The number of buckets that this process should hold.
    share: usize,
}

impl Default for Buckets {
    fn default() -> Self {
        let state = State {
            replica: None,
            held: Arc::default(),
            usable_until: Instant::now(),
            replicas: 1,
            share: 0,
        };
        Self { state: Mutex::new(state), acquired: Notify::new() }
    }
}

impl Buckets {
    /// Returns the held buckets, or none if the lease was not renewed in time.
    pub(crate) fn held(&self) -> Arc<HeldBuckets> {
        let state = self.state.lock();
        if Instant::now() < state.usable_until { state.held.clone() } else { Arc::default() }
    }

    /// Returns the replica id of this process, if it holds buckets.
    pub(crate) fn replica(&self) -> Option<ReplicaId> {
        let state = self.state.lock();
        state.replica.filter(|_| !state.held.is_empty() && Instant::now() < state.usable_until)
    }

    /// Returns the number of processes that run a keeper, at least one.
    pub(crate) fn replicas(&self) -> usize {
        self.state.lock().replicas
    }

    fn is_below_share(&self) -> bool {
        let share = self.state.lock().share;
        self.held().len() < share
    }

    /// Stores the held buckets after a renewal. Returns whether they have changed, and wakes the
    /// search if there are new ones.
    fn set(&self, replica: ReplicaId, renewal: &Renewal, renewed_at: Instant) -> bool {
        let mut state = self.state.lock();
        state.replica = Some(replica);
        state.usable_until = renewed_at + USABLE_LEASE;
        state.replicas = renewal.replicas.max(1);
        state.share = share(state.replicas, renewal.rank);
        if *state.held == renewal.held {
            return false;
        }
        let is_new = |(bucket, epoch)| state.held.get(bucket) != Some(epoch);
        if renewal.held.iter().any(is_new) {
            self.acquired.notify_one();
        }
        state.held = Arc::new(renewal.held.clone());
        true
    }

    /// Stores the times of facts from now on, because this process begins no more checks.
    pub(super) fn stop_remembering(&self) {
        self.state.lock().replica = None;
    }

    /// Forgets the buckets, because this process checks no more sessions.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        (state.replica, state.held) = (None, Arc::default());
    }
}

/// The share of the process with this rank among `replicas` processes. All shares together are all
/// buckets.
fn share(replicas: usize, rank: usize) -> usize {
    let all = usize::from(Bucket::COUNT);
    all / replicas + usize::from(rank < all % replicas)
}

impl Greenroom {
    /// Renews the lease of this process and acquires or releases buckets, until the future is
    /// dropped.
    pub(super) async fn hold_buckets(&self, replica: ReplicaId) {
        let mut failures = FailureLog::new("failed to renew lease of buckets");
        loop {
            failures.record(caught(self.balance_buckets(replica)).await);
            let is_below_share = self.shared.buckets.is_below_share();
            sleep(if is_below_share { ACQUISITION_INTERVAL } else { RENEWAL_INTERVAL }).await;
        }
    }

    async fn balance_buckets(&self, replica: ReplicaId) -> Result<(), Error> {
        if self.is_cut_off() {
            if !self.shared.buckets.held().is_empty() {
                tracing::warn!("released buckets, because LiveKit does not list rooms");
                self.unregister(replica).await;
            }
            return Ok(());
        }
        let renewed_at = Instant::now();
        let Some(mut renewal) = self.renew_or_register(replica).await? else { return Ok(()) };
        let share = share(renewal.replicas.max(1), renewal.rank);
        let surplus: Vec<_> = renewal.held.keys().skip(share).copied().collect();
        for bucket in &surplus {
            renewal.held.remove(bucket);
        }
        // Stop checking the sessions of surplus buckets before they are released.
        if self.shared.buckets.set(replica, &renewal, renewed_at) {
            self.shared.schedule.retain(&renewal.held);
        }
        let database = &self.shared.database;
        if !surplus.is_empty() {
            let release = async |db: &mut _| bucket::release(db, replica, &surplus).await;
            database.run_for_keeper(release).await?;
        }
        let missing = share - renewal.held.len();
        if missing > 0 {
            let acquire = async |db: &mut _| bucket::acquire(db, replica, missing).await;
            renewal.held.extend(database.run_for_keeper(acquire).await?);
            self.shared.buckets.set(replica, &renewal, renewed_at);
        }
        Ok(())
    }

    /// Returns whether other replicas should check the sessions, because only this one may have lost
    /// LiveKit. If all have lost it, nothing is lost, because none can check a session.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.shared.buckets.replicas() > 1 && self.shared.breaker.is_open_for(CUT_OFF_AFTER)
    }

    /// Renews the lease, or takes a new one. `None` means that the lease is lost again.
    async fn renew_or_register(&self, replica: ReplicaId) -> Result<Option<Renewal>, Error> {
        let renew = async |db: &mut _| {
            let renewed = bucket::renew(db, replica).await?;
            if renewed.is_some() {
                return Ok(renewed);
            }
            bucket::register(db, replica).await?;
            bucket::renew(db, replica).await
        };
        self.shared.database.run_for_keeper(renew).await
    }

    /// Ends the lease, so that other processes may acquire the buckets at once.
    pub(super) async fn unregister(&self, replica: ReplicaId) {
        self.shared.buckets.clear();
        // What this process remembers is outdated when it acquires a bucket again.
        self.shared.schedule.retain(&HeldBuckets::new());
        let unregister = async |db: &mut _| bucket::unregister(db, replica).await;
        if let Err(error) = self.shared.database.run_for_keeper(unregister).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "failed to release buckets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_cover_all_buckets() {
        for replicas in 1..=1_100 {
            let shares: Vec<_> = (0..replicas).map(|rank| share(replicas, rank)).collect();
            assert_eq!(shares.iter().sum::<usize>(), usize::from(Bucket::COUNT));
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
