//! Tests of the order, the size and the admission of the items in a queue.

use tokio::sync::oneshot;
use tokio::time::{advance, pause};

use super::*;
use crate::bulkhead::Work;

struct Item {
    needs_own_statement: bool,
}

impl BatchItem for Item {
    type Scope = ();
    type Output = ();
    const WORK: Work = Work::Start;

    fn needs_own_statement(&self) -> bool {
        self.needs_own_statement
    }

    async fn execute(_greenroom: &Greenroom, (): (), _batch: Vec<Queued<Self>>) -> bool {
        false
    }
}

/// Queues items, and returns where their replies arrive.
fn fill(
    state: &mut State<Item>,
    count: usize,
    needs_own_statement: bool,
) -> Vec<oneshot::Receiver<Result<(), Error>>> {
    let mut responses = Vec::new();
    for _ in 0..count {
        let deadline = Instant::now() + Duration::from_millis(3_500);
        let (item, response) = Queued::new(Item { needs_own_statement }, deadline);
        state.push(item);
        responses.push(response);
    }
    responses
}

fn sizes(state: &mut State<Item>) -> Vec<usize> {
    std::iter::repeat_with(|| state.take_batch().len()).take_while(|size| *size > 0).collect()
}

#[tokio::test]
async fn statement_has_at_most_64_items_and_special_ones_are_alone() {
    let mut state = State::default();
    let _responses = (fill(&mut state, 100, false), fill(&mut state, 2, true));
    let _more = fill(&mut state, 3, false);
    assert_eq!(sizes(&mut state), [64, 36, 1, 1, 3]);
    assert!(state.queued_since.is_none());
}

#[tokio::test]
async fn item_without_caller_is_skipped() {
    let mut state = State::default();
    drop(fill(&mut state, 2, false));
    let _responses = fill(&mut state, 1, false);
    assert_eq!(sizes(&mut state), [1]);
}

#[tokio::test]
async fn item_with_too_little_time_left_is_refused() {
    pause();
    let mut state = State::default();
    let late = fill(&mut state, 1, false);
    advance(Duration::from_millis(2_600)).await;
    let _in_time = fill(&mut state, 1, false);
    assert_eq!(state.take_batch().len(), 1);
    for response in late {
        assert!(matches!(response.await.unwrap(), Err(Error::Overloaded)));
    }
}

#[tokio::test]
async fn burst_is_queued_and_sustained_overload_is_not() {
    pause();
    let mut state = State { in_flight: MAX_IN_FLIGHT, ..State::default() };
    // Each statement is assumed to take 5 ms, and two are in flight: 4,000 items wait 158 ms.
    let _responses = fill(&mut state, 4_000, false);
    assert!(!state.would_wait_too_long(MAX_IN_FLIGHT));
    advance(Duration::from_millis(100)).await;
    assert!(state.would_wait_too_long(MAX_IN_FLIGHT));
    state.waiting.truncate(3_000);
    assert!(!state.would_wait_too_long(MAX_IN_FLIGHT));
}

#[tokio::test]
async fn one_stall_counts_at_most_four_times_the_average() {
    let mut state = State::<Item>::default();
    state.count(Duration::from_secs(3), false);
    assert!(state.batch_time < Duration::from_millis(6), "{:?}", state.batch_time);
    state.count(Duration::from_secs(3), true);
    assert!(state.batch_time > Duration::from_millis(90), "{:?}", state.batch_time);
}

#[tokio::test]
async fn item_with_a_free_slot_is_never_refused() {
    // PostgreSQL did not respond for a long time.
    let mut state =
        State::<Item> { batch_time: Duration::from_mins(1), in_flight: 1, ..State::default() };
    assert!(!state.would_wait_too_long(MAX_IN_FLIGHT));
    state.in_flight = MAX_IN_FLIGHT;
    assert!(state.would_wait_too_long(MAX_IN_FLIGHT));
}
