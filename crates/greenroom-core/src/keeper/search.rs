//! The searches for due sessions: when, in which range, and in which order.

use std::sync::Arc;
use std::time::Duration;

use greenroom_store::due::RECENTLY_DUE;
use greenroom_store::{DueOrder, DueRange, DueSearch, HeldBuckets};
use tokio::time::Instant;

use crate::database::DB_TIMEOUT;

/// Interval between two searches for due sessions. A fact that another process records waits at most
/// this long. The next search comes earlier if a search fills its batch, or if this process makes a
/// session due in PostgreSQL.
pub(super) const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

/// Interval between two searches of all due sessions. The searches between them read only the recent
/// ones.
const SEARCH_ALL_INTERVAL: Duration = Duration::from_secs(10);

// A session must not leave the recent range before the next search of all due sessions.
const _: () = assert!(
    SEARCH_ALL_INTERVAL.as_secs() + DB_TIMEOUT.as_secs()
        < RECENTLY_DUE.num_seconds().unsigned_abs()
);

/// Selects the range of each search: all due sessions at the first search and after each
/// [`SEARCH_ALL_INTERVAL`], and the recent ones otherwise.
#[derive(Default)]
pub(super) struct RangeSelector {
    next_all: Option<Instant>,
}

impl RangeSelector {
    pub(super) fn next_range(&mut self) -> DueRange {
        let now = Instant::now();
        if self.next_all.is_some_and(|at| now < at) {
            return DueRange::Recent;
        }
        self.next_all = Some(now + SEARCH_ALL_INTERVAL);
        DueRange::All
    }

    /// Makes the next search one of all due sessions.
    pub(super) fn search_all_next(&mut self) {
        self.next_all = None;
    }
}

/// Decides which batch begins with a search, and for which sessions.
pub(super) struct SearchPlan {
    ranges: RangeSelector,
    order: DueOrder,
    next_at: Instant,
    /// The buckets that were held at the latest search.
    held: Arc<HeldBuckets>,
}

impl SearchPlan {
    /// Plans the first search for now.
    pub(super) fn new() -> Self {
        Self {
            ranges: RangeSelector::default(),
            order: DueOrder::OldestFirst,
            next_at: Instant::now(),
            held: Arc::default(),
        }
    }

    /// Returns the search with which the next batch begins, if it is time.
    pub(super) fn begin_batch(&mut self, held: &Arc<HeldBuckets>) -> Option<DueSearch> {
        if !Arc::ptr_eq(held, &self.held) {
            // Sessions of newly acquired buckets may have been due for longer than the recent range.
            self.ranges.search_all_next();
            self.held = held.clone();
        }
        let now = Instant::now();
        if now < self.next_at {
            return None;
        }
        self.next_at = now + SEARCH_INTERVAL;
        Some(DueSearch { range: self.ranges.next_range(), order: self.order })
    }

    /// Plans the next search after a batch. `is_full` is whether its search found as many sessions as
    /// the batch can contain: more are probably due. `None` means that the search failed.
    pub(super) fn end_batch(&mut self, is_full: Option<bool>) {
        let Some(is_full) = is_full else { return self.ranges.search_all_next() };
        // Every second search then starts with the sessions that became due last, so that a backlog,
        // as after an outage, does not delay users who are in a call.
        self.order = if is_full { self.order.toggled() } else { DueOrder::OldestFirst };
        if is_full {
            // Sessions of a backlog may have been due for longer than the recent range.
            self.ranges.search_all_next();
            self.search_next();
        }
    }

    /// Makes the next batch begin with a search.
    pub(super) fn search_next(&mut self) {
        self.next_at = Instant::now();
    }

    /// The time of the next search.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const RECENT: Option<DueSearch> =
        Some(DueSearch { range: DueRange::Recent, order: DueOrder::OldestFirst });
    const ALL: Option<DueSearch> = Some(DueSearch::ALL);

    /// A plan after its first search, and the buckets.
    fn searched() -> (SearchPlan, Arc<HeldBuckets>) {
        let (mut plan, held) = (SearchPlan::new(), Arc::default());
        assert_eq!(plan.begin_batch(&held), ALL);
        plan.end_batch(Some(false));
        (plan, held)
    }

    #[tokio::test(start_paused = true)]
    async fn batches_search_at_intervals_and_on_request() {
        let (mut plan, held) = searched();
        assert_eq!(plan.begin_batch(&held), None);
        plan.end_batch(Some(false));
        advance(plan.next_at() - Instant::now()).await;
        assert_eq!(plan.begin_batch(&held), RECENT);
        plan.search_next();
        assert_eq!(plan.begin_batch(&held), RECENT);
        assert_eq!(plan.next_at() - Instant::now(), SEARCH_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn search_that_fills_its_batch_is_followed_by_one_in_the_opposite_order() {
        let newest = Some(DueSearch { order: DueOrder::NewestFirst, ..DueSearch::ALL });
        let (mut plan, held) = searched();
        plan.end_batch(Some(true));
        assert_eq!(plan.begin_batch(&held), newest);
        plan.end_batch(Some(true));
        assert_eq!(plan.begin_batch(&held), ALL);
        plan.end_batch(Some(true));
        assert_eq!(plan.begin_batch(&held), newest);
        plan.end_batch(Some(false));
        plan.search_next();
        assert_eq!(plan.begin_batch(&held), RECENT);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_search_is_followed_by_one_of_all_due_sessions() {
        let (mut plan, held) = searched();
        advance(SEARCH_INTERVAL).await;
        assert_eq!(plan.begin_batch(&held), RECENT);
        plan.end_batch(None);
        advance(SEARCH_INTERVAL).await;
        assert_eq!(plan.begin_batch(&held), ALL);
    }

    #[tokio::test(start_paused = true)]
    async fn new_buckets_are_searched_for_all_due_sessions() {
        let (mut plan, _) = searched();
        let acquired = Arc::default();
        assert_eq!(plan.begin_batch(&acquired), None);
        advance(SEARCH_INTERVAL).await;
        assert_eq!(plan.begin_batch(&acquired), ALL);
        advance(SEARCH_INTERVAL).await;
        assert_eq!(plan.begin_batch(&acquired), RECENT);
    }

    #[tokio::test(start_paused = true)]
    async fn all_due_sessions_are_searched_every_ten_seconds_and_on_request() {
        let mut ranges = RangeSelector::default();
        assert_eq!(ranges.next_range(), DueRange::All);
        assert_eq!(ranges.next_range(), DueRange::Recent);
        advance(SEARCH_ALL_INTERVAL).await;
        assert_eq!(ranges.next_range(), DueRange::All);
        ranges.search_all_next();
        assert_eq!(ranges.next_range(), DueRange::All);
        assert_eq!(ranges.next_range(), DueRange::Recent);
    }
}
