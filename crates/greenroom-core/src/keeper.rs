//! The keeper: it claims what is due, looks, and does what follows.
//!
//! The order is what makes it safe: claim, look, decide, commit the decision, act. A process that
//! dies at any point repeats a look or an action, and skips none; of two that look at once only one
//! commits. What cannot be done twice, asking for an agent, follows only from a look that showed
//! none on its way, and only once that it was asked for is written down.

mod act;
mod look;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, stream};
use greenroom_domain::lifecycle::{Decision, decide};
use greenroom_store::{Claim, Claims, First};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument;

use self::look::{Glance, glance};
use crate::{Error, Greenroom};

/// How often somebody asks what is due, when nothing in this process says that something is.
const TICK: Duration = Duration::from_millis(250);

/// How many sessions are claimed at once: one call lists the rooms of them all.
const BATCH: u32 = 256;

/// How many are under claim at once. What becomes due meanwhile is looked at after them, so that they
/// are no more than keep all calls to LiveKit busy; while it does not answer, each is for seconds.
const CLAIMED: usize = 512;

/// How many there must be room for: claims of a few at a time would be many claims.
const WORTH_A_CLAIM: u32 = 32;

/// How many of a batch are looked at at once.
const AT_ONCE: usize = 64;

/// How long all of a batch's looks may take: what is left of a lease is for writing and acting.
const TO_LOOK: Duration = Duration::from_secs(8);

/// How long a look of which nothing follows waits for others, to be written with them.
const TO_GATHER: Duration = Duration::from_millis(500);

/// A session of which nothing follows but when to look at it again.
type AtRest = (Claim, Option<DateTime<Utc>>);

impl Greenroom {
    /// Keeps sessions until `stop` is done, and then lets what has begun come to its end. Any number
    /// of processes may keep at once; PostgreSQL shares the work out.
    pub async fn keep(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        // In a set of its own, as are the batches: whoever drops this future stops them, too.
        let mut house = JoinSet::new();
        let greenroom = self.clone();
        house.spawn(async move { greenroom.keep_house().await });
        let free = Arc::new(Semaphore::new(CLAIMED));
        let mut batches = JoinSet::new();
        let mut first = First::Oldest;
        let mut is_told = false;
        loop {
            while batches.try_join_next().is_some() {}
            let room = tokio::select! {
                () = &mut stop => None,
                room = room(&free) => room,
            };
            let Some(mut room) = room else { break };
            let limit = room.num_permits();
            let claims = or_none(self.claim(limit, first).await, &mut is_told);
            let size = claims.sessions.len();
            // A full claim says that there is more. Then every other one begins with what has become
            // due last: a backlog, as after an outage, keeps nobody waiting who is in a call.
            let more = size > 0 && size == limit;
            first = if more { first.other() } else { First::Oldest };
            // A place for each that was claimed, and the rest is free again at once: while LiveKit is
            // slow, a few that are looked at would keep everybody else waiting.
            if let Some(places) = room.split(size).filter(|_| size > 0) {
                let greenroom = self.clone();
                let look_after = async move { greenroom.look_after(claims, places).await };
                batches.spawn(look_after.in_current_span());
            }
            drop(room);
            let pause = if more { Duration::ZERO } else { TICK };
            tokio::select! {
                () = &mut stop => break,
                _ = timeout(pause, self.shared.due.notified()) => {}
            }
        }
        house.abort_all();
        while batches.join_next().await.is_some() {}
    }

    async fn claim(&self, limit: usize, first: First) -> Result<Claims, Error> {
        let (limit, urgency) =
            (i64::try_from(limit).unwrap_or(i64::MAX), self.shared.calls.affords());
        let take = async |db: &mut _| Claim::take(db, limit, urgency, first).await;
        self.shared.database.keep(take).await
    }

    /// Looks at a batch. What has to be done for one of them is done at once; where there is nothing
    /// to do, that is written for many in one statement. Each gives its place up as soon as it was
    /// looked at, or the slowest of a batch would keep others from being claimed.
    async fn look_after(&self, claims: Claims, mut places: OwnedSemaphorePermit) {
        let Claims { at, sessions } = claims;
        let deadline = Instant::now() + TO_LOOK;
        let rooms = timeout_at(deadline, self.rooms_of(&sessions)).await.ok().flatten();
        let (mut at_rest, mut to_see_to) = (Vec::new(), Vec::new());
        for claim in sessions {
            let glance = glance(&claim, rooms.as_ref());
            // Most need no call of their own, and nothing follows for them.
            match self.at_a_glance(&claim, &glance, at) {
                Some(next_check_at) => at_rest.push((claim, next_check_at)),
                None => to_see_to.push((claim, glance, places.split(1))),
            }
        }
        drop(places);
        let looks = to_see_to.into_iter().map(|(claim, glance, place)| async move {
            let looked = self.look_after_one(claim, glance, at, deadline).await;
            drop(place);
            looked
        });
        let mut looks = std::pin::pin!(stream::iter(looks).buffer_unordered(AT_ONCE));
        // Beside the looks, never between them: one that is not polled holds what others wait for.
        let mut writes = JoinSet::new();
        loop {
            match timeout(TO_GATHER, looks.next()).await {
                Ok(Some(looked)) => at_rest.extend(looked),
                Ok(None) => break,
                Err(_) => self.put_off(&mut at_rest, &mut writes),
            }
        }
        self.put_off(&mut at_rest, &mut writes);
        while writes.join_next().await.is_some() {}
    }

    /// When to look again, where the list of rooms shows that nothing else follows.
    #[allow(clippy::option_option, reason = "that nothing is left to see is an answer, too")]
    fn at_a_glance(
        &self,
        claim: &Claim,
        glance: &Glance,
        at: DateTime<Utc>,
    ) -> Option<Option<DateTime<Utc>>> {
        let Glance::Seen(seen) = glance else { return None };
        let decide = || decide(&self.as_known(claim), seen.as_ref(), at);
        // A fault of ours is met where it is one session's alone.
        let decision = std::panic::catch_unwind(AssertUnwindSafe(decide)).ok()?;
        is_at_rest(claim, &decision).then_some(decision.state.next_check_at)
    }

    /// One of a batch. A fault of ours in it is its own: the others are looked at, and it is again
    /// when its lease has run out.
    async fn look_after_one(
        &self,
        claim: Claim,
        glance: Glance,
        at: DateTime<Utc>,
        deadline: Instant,
    ) -> Option<AtRest> {
        let id = claim.id;
        let seen_to = self.see_to(claim, glance, at, deadline);
        let looked = AssertUnwindSafe(seen_to).catch_unwind().await;
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

    async fn see_to(
        &self,
        claim: Claim,
        glance: Glance,
        at: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<Option<AtRest>, Error> {
        let seen = match glance {
            Glance::Seen(seen) => seen,
            Glance::LookInto(sid) => {
                timeout_at(deadline, self.look_into(&claim, sid)).await.ok().flatten()
            }
        };
        let decision = decide(&self.as_known(&claim), seen.as_ref(), at);
        if is_at_rest(&claim, &decision) {
            return Ok(Some((claim, decision.state.next_check_at)));
        }
        self.follow(claim, &decision).await?;
        Ok(None)
    }

    /// Commits what follows, and does it.
    async fn follow(&self, claim: Claim, decision: &Decision) -> Result<(), Error> {
        let mut written = claim.clone();
        let commit = async |db: &mut _| Ok((written.commit(db, decision).await?, written));
        let (committed, written) = self.shared.database.keep(commit).await?;
        if !committed {
            // Somebody has written meanwhile: the look is thrown away, and made again.
            self.free(&claim).await?;
            self.shared.due.notify_one();
            return Ok(());
        }
        self.shared.waits.look();
        if !decision.actions.is_empty() {
            self.act(&written, &decision.actions, &decision.state).await;
            self.free(&written).await?;
        }
        Ok(())
    }

    async fn free(&self, claim: &Claim) -> Result<(), Error> {
        self.shared.database.keep(async |db: &mut _| claim.free(db).await).await
    }

    fn put_off(&self, at_rest: &mut Vec<AtRest>, writes: &mut JoinSet<()>) {
        if at_rest.is_empty() {
            return;
        }
        let (greenroom, at_rest) = (self.clone(), std::mem::take(at_rest));
        writes.spawn(async move { greenroom.write_at_rest(&at_rest).await }.in_current_span());
    }

    async fn write_at_rest(&self, at_rest: &[AtRest]) {
        let put_off = async |db: &mut _| {
            let done = Claim::put_off(db, at_rest).await?;
            let written = at_rest.iter().filter(|(claim, _)| !done.contains(&claim.id));
            let mut changed = false;
            for (claim, _) in written {
                claim.free(db).await?;
                changed = true;
            }
            Ok(changed)
        };
        match self.shared.database.keep(put_off).await {
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
fn or_none(claims: Result<Claims, Error>, is_told: &mut bool) -> Claims {
    if let (Err(error), false) = (&claims, *is_told) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "nothing could be claimed; the keeper goes on trying"
        );
    }
    *is_told = claims.is_err();
    claims.unwrap_or_default()
}

/// Room for a claim, as soon as it is worth one; none when nobody may claim any more.
async fn room(free: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let mut room = free.clone().acquire_many_owned(WORTH_A_CLAIM).await.ok()?;
    let more =
        u32::try_from(free.available_permits()).map_or(0, |more| more.min(BATCH - WORTH_A_CLAIM));
    if let Ok(more) = free.clone().try_acquire_many_owned(more) {
        room.merge(more);
    }
    Some(room)
}

/// Whether nothing follows but the next look.
fn is_at_rest(claim: &Claim, decision: &Decision) -> bool {
    let mut before = claim.state.clone();
    before.next_check_at = decision.state.next_check_at;
    decision.actions.is_empty() && decision.events.is_empty() && before == decision.state
}
