//! The range of each search for due sessions.

use std::time::Duration;

use greenroom_store::DueRange;
use tokio::time::Instant;

/// Interval between two searches of all due sessions. The searches between them read only the recent
/// ones.
const FULL_SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// Selects the range of each search: all due sessions at the first search and after each
/// [`FULL_SEARCH_INTERVAL`], and the recent ones otherwise.
#[derive(Default)]
pub(super) struct RangeSelector {
    next_full: Option<Instant>,
}

impl RangeSelector {
    pub(super) fn next_range(&mut self) -> DueRange {
        let now = Instant::now();
        if self.next_full.is_some_and(|at| now < at) {
            return DueRange::Recent;
        }
        self.next_full = Some(now + FULL_SEARCH_INTERVAL);
        DueRange::All
    }

    /// Makes the next search one of all due sessions.
    pub(super) fn search_all_next(&mut self) {
        self.next_full = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_due_sessions_are_searched_every_ten_seconds_and_on_request() {
        let mut ranges = RangeSelector::default();
        assert_eq!(ranges.next_range(), DueRange::All);
        assert_eq!(ranges.next_range(), DueRange::Recent);
        advance(FULL_SEARCH_INTERVAL).await;
        assert_eq!(ranges.next_range(), DueRange::All);
        ranges.search_all_next();
        assert_eq!(ranges.next_range(), DueRange::All);
        assert_eq!(ranges.next_range(), DueRange::Recent);
    }
}
