//! The keeper: it claims what is due, looks, and does what follows.
//!
//! The order is what makes it safe: claim, look, decide, commit the decision, act. A process that
//! dies at any point repeats a look or an action, and skips none; of two that look at once only one
//! commits. What cannot be done twice, asking for an agent, follows only from a look that showed
//! none on its way, and only once that it was asked for is written down.

mod act;
mod observe;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use greenroom_domain::lifecycle::{Decision, decide};
use greenroom_store::{Claim, ClaimBatch, ClaimOrder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use self::observe::{RoomLookup, look_up_room};
use crate::{Error, Greenroom};

/// How often somebody asks what is due, when nothing in this process says that something is.
const CLAIM_INTERVAL: Duration = Duration::from_millis(250);

/// How many sessions are claimed at once: one call lists the rooms of them all.
const MAX_BATCH: u32 = 256;

/// How many are under claim at once. What becomes due meanwhile is looked at after them, so that they
/// are no more than keep all calls to LiveKit busy; while it does not answer, each is for seconds.
const MAX_CLAIMED: usize = 512;

/// How many there must be room for: claims of a few at a time would be many claims.
const MIN_BATCH: u32 = 32;

/// How many of a batch are looked at at once.
const OBSERVE_CONCURRENCY: usize = 64;

/// How long all of a batch's looks may take: what is left of a lease is for writing and acting.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a look of which nothing follows waits for others, to be written with them.
const RESCHEDULE_DELAY: Duration = Duration::from_millis(500);

/// A session of which nothing follows but when to look at it again.
type IdleCheck = (Claim, Option<DateTime<Utc>>);

impl Greenroom {
    /// Keeps sessions until `stop` is done, and then lets what has begun come to its end. Any number
    /// of processes may keep at once; PostgreSQL shares the work out.
    pub async fn run_keeper(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        // In a set of its own, as are the batches: whoever drops this future stops them, too.
        let mut retention = JoinSet::new();
        let greenroom = self.clone();
        retention.spawn(async move { greenroom.run_retention().await });
        let free = Arc::new(Semaphore::new(MAX_CLAIMED));
        let mut batches = JoinSet::new();
        let mut order = ClaimOrder::OldestFirst;
        let mut is_logged = false;
        loop {
            while batches.try_join_next().is_some() {}
            let permits = tokio::select! {
                () = &mut stop => None,
                permits = acquire_permits(&free) => permits,
            };
            let Some(mut permits) = permits else { break };
            let limit = permits.num_permits();
            let claims = claims_or_empty(self.claim(limit, order).await, &mut is_logged);
            let size = claims.sessions.len();
            // A full claim says that there is more. Then every other one begins with what has become
            // due last: a backlog, as after an outage, keeps nobody waiting who is in a call.
            let is_full = size > 0 && size == limit;
            order = if is_full { order.toggled() } else { ClaimOrder::OldestFirst };
            // A place for each that was claimed, and the rest is free again at once: while LiveKit is
            // slow, a few that are looked at would keep everybody else waiting.
            if let Some(permits) = permits.split(size).filter(|_| size > 0) {
                let greenroom = self.clone();
                let reconcile_batch =
                    async move { greenroom.reconcile_batch(claims, permits).await };
                batches.spawn(reconcile_batch.in_current_span());
            }
            drop(permits);
            let pause = if is_full { Duration::ZERO } else { CLAIM_INTERVAL };
            tokio::select! {
                () = &mut stop => break,
                _ = timeout(pause, self.shared.due.notified()) => {}
            }
        }
        retention.abort_all();
        while batches.join_next().await.is_some() {}
    }

    async fn claim(&self, limit: usize, order: ClaimOrder) -> Result<ClaimBatch, Error> {
        let (limit, urgency) =
            (i64::try_from(limit).unwrap_or(i64::MAX), self.shared.livekit_limiter.urgency());
        let take = async |db: &mut _| Claim::due(db, limit, urgency, order).await;
        self.shared.database.run_for_keeper(take).await
    }

    /// Looks at a batch. What has to be done for one of them is done at once; where there is nothing
    /// to do, that is written for many in one statement. Each gives its place up as soon as it was
    /// looked at, or the slowest of a batch would keep others from being claimed.
    async fn reconcile_batch(&self, claims: ClaimBatch, mut permits: OwnedSemaphorePermit) {
        let ClaimBatch { at, sessions } = claims;
        let deadline = Instant::now() + OBSERVE_TIMEOUT;
        let rooms = timeout_at(deadline, self.list_rooms(&sessions)).await.ok().flatten();
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        for claim in sessions {
            let lookup = look_up_room(&claim, rooms.as_ref());
            // Most need no call of their own, and nothing follows for them.
            match self.next_check_if_idle(&claim, &lookup, at) {
                Some(next_check_at) => idle.push((claim, next_check_at)),
                None => busy.push((claim, lookup, permits.split(1))),
            }
        }
        drop(permits);
        let looks = busy.into_iter().map(|(claim, lookup, permit)| async move {
            let looked = self.reconcile_isolated(claim, lookup, at, deadline).await;
            drop(permit);
            looked
        });
        let mut looks = std::pin::pin!(stream::iter(looks).buffer_unordered(OBSERVE_CONCURRENCY));
        // Beside the looks, never between them: one that is not polled holds what others wait for.
        let mut writes = JoinSet::new();
        loop {
            match timeout(RESCHEDULE_DELAY, looks.next()).await {
                Ok(Some(looked)) => idle.extend(looked),
                Ok(None) => break,
                Err(_) => self.spawn_reschedule(&mut idle, &mut writes),
            }
        }
        self.spawn_reschedule(&mut idle, &mut writes);
        while writes.join_next().await.is_some() {}
    }

    /// When to look again, where the list of rooms shows that nothing else follows.
    #[allow(clippy::option_option, reason = "that nothing is left to see is an answer, too")]
    fn next_check_if_idle(
        &self,
        claim: &Claim,
        lookup: &RoomLookup,
        at: DateTime<Utc>,
    ) -> Option<Option<DateTime<Utc>>> {
        let RoomLookup::Observed(seen) = lookup else { return None };
        let decide = || decide(&self.lifecycle_session(claim), seen.as_ref(), at);
        // A fault of ours is met where it is one session's alone.
        let decision = std::panic::catch_unwind(AssertUnwindSafe(decide)).ok()?;
        is_idle(claim, &decision).then_some(decision.state.next_check_at)
    }

    /// One of a batch. A fault of ours in it is its own: the others are looked at, and it is again
    /// when its lease has run out.
    async fn reconcile_isolated(
        &self,
        claim: Claim,
        lookup: RoomLookup,
        at: DateTime<Utc>,
        deadline: Instant,
    ) -> Option<IdleCheck> {
        let id = claim.id;
        let reconciled = self.reconcile(claim, lookup, at, deadline);
        let looked = AssertUnwindSafe(reconciled).catch_unwind().await;
        match looked {
            Ok(Ok(looked)) => looked,
            Ok(Err(error)) => {
                tracing::warn!(session_id = %id, error = &error as &dyn std::error::Error,
                    "what follows for a session could not be written down");
                None
            }
            Err(_) => {
                tracing::error!(session_id = %id, "a look at a session failed by a fault of ours");
                None
            }
        }
    }

    async fn reconcile(
        &self,
        claim: Claim,
        lookup: RoomLookup,
        at: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<Option<IdleCheck>, Error> {
        let seen = match lookup {
            RoomLookup::Observed(seen) => seen,
            RoomLookup::NeedsDetails(sid) => {
                timeout_at(deadline, self.observe_room(&claim, sid)).await.ok().flatten()
            }
        };
        let decision = decide(&self.lifecycle_session(&claim), seen.as_ref(), at);
        if is_idle(&claim, &decision) {
            return Ok(Some((claim, decision.state.next_check_at)));
        }
        self.apply(claim, &decision).await?;
        Ok(None)
    }

    /// Commits what follows, and does it.
    async fn apply(&self, claim: Claim, decision: &Decision) -> Result<(), Error> {
        let mut written = claim.clone();
        let commit = async |db: &mut _| Ok((written.commit(db, decision).await?, written));
        let (committed, written) = self.shared.database.run_for_keeper(commit).await?;
        if !committed {
            // Somebody has written meanwhile: the look is thrown away, and made again.
            self.release(&claim).await?;
            self.shared.due.notify_one();
            return Ok(());
        }
        self.shared.waiters.wake();
        if !decision.actions.is_empty() {
            self.act(&written, &decision.actions, &decision.state).await;
            self.release(&written).await?;
        }
        Ok(())
    }

    async fn release(&self, claim: &Claim) -> Result<(), Error> {
        self.shared.database.run_for_keeper(async |db: &mut _| claim.release(db).await).await
    }

    fn spawn_reschedule(&self, idle: &mut Vec<IdleCheck>, writes: &mut JoinSet<()>) {
        if idle.is_empty() {
            return;
        }
        let (greenroom, idle) = (self.clone(), std::mem::take(idle));
        writes.spawn(async move { greenroom.write_rescheduled(&idle).await }.in_current_span());
    }

    async fn write_rescheduled(&self, idle: &[IdleCheck]) {
        let reschedule = async |db: &mut _| {
            let done = Claim::reschedule(db, idle).await?;
            let written = idle.iter().filter(|(claim, _)| !done.contains(&claim.id));
            let mut changed = false;
            for (claim, _) in written {
                claim.release(db).await?;
                changed = true;
            }
            Ok(changed)
        };
        match self.shared.database.run_for_keeper(reschedule).await {
            Ok(true) => self.shared.due.notify_one(),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "looks could not be written down"
            ),
        }
    }
}

/// The claims, or none: a database that is down is told of once, and not four times a second.
fn claims_or_empty(claims: Result<ClaimBatch, Error>, is_logged: &mut bool) -> ClaimBatch {
    if let (Err(error), false) = (&claims, *is_logged) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "nothing could be claimed; the keeper goes on trying"
        );
    }
    *is_logged = claims.is_err();
    claims.unwrap_or_default()
}

/// Room for a claim, as soon as it is worth one; none when nobody may claim any more.
async fn acquire_permits(free: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let mut permits = free.clone().acquire_many_owned(MIN_BATCH).await.ok()?;
    let is_full = u32::try_from(free.available_permits())
        .map_or(0, |is_full| is_full.min(MAX_BATCH - MIN_BATCH));
    if let Ok(is_full) = free.clone().try_acquire_many_owned(is_full) {
        permits.merge(is_full);
    }
    Some(permits)
}

/// Whether nothing follows but the next look.
fn is_idle(claim: &Claim, decision: &Decision) -> bool {
    let mut before = claim.state.clone();
    before.next_check_at = decision.state.next_check_at;
    decision.actions.is_empty() && decision.events.is_empty() && before == decision.state
}
