//! The next step of a check, after the rooms were listed. Pure.

use std::panic::AssertUnwindSafe;

use chrono::{DateTime, Utc};
use greenroom_domain::lifecycle::{Decision, Observation, decide, postpone};
use greenroom_livekit::RoomList;
use greenroom_store::SessionSnapshot;

/// The next step of a check, after the rooms were listed.
pub(super) enum Step {
    /// The decision changes nothing but the time of the next check.
    Unchanged(Box<Decision>),
    /// The list was sufficient for this decision.
    Apply(Box<Decision>),
    /// The room exists with this sid, and a decision needs its participants and dispatches.
    Observe(String),
}

/// [`next_step`], or `None` if it panicked. The session is checked again soon.
pub(super) fn next_step_isolated(
    snapshot: &SessionSnapshot,
    rooms: &RoomList,
    at: DateTime<Utc>,
) -> Option<Step> {
    let step = std::panic::catch_unwind(AssertUnwindSafe(|| next_step(snapshot, rooms, at)));
    step.inspect_err(|_| {
        tracing::error!(session_id = %snapshot.id, "panicked while reconciling session");
    })
    .ok()
}

/// Decides by the list of rooms, if that is sufficient: the room does not exist, or the session is
/// over and only the existence of its room matters.
fn next_step(snapshot: &SessionSnapshot, rooms: &RoomList, at: DateTime<Utc>) -> Step {
    let observation = match rooms.get(&snapshot.room_name) {
        Some(Ok(sid)) if !snapshot.session.state.is_over() => return Step::Observe(sid.clone()),
        Some(Ok(sid)) => Some(Observation { room: Some(sid.clone()), ..Observation::default() }),
        // If LiveKit cannot list many rooms, only the urgent ones are repeated soon. The others are
        // then spread over several lists.
        Some(Err(_)) if snapshot.session.is_idle(at) => {
            return Step::Unchanged(Box::new(postpone(&snapshot.session, at)));
        }
        Some(Err(_)) => None,
        None => Some(Observation::default()),
    };
    let decision = decide(&snapshot.session, observation.as_ref(), at);
    if changes_nothing(snapshot, &decision) {
        Step::Unchanged(Box::new(decision))
    } else {
        Step::Apply(Box::new(decision))
    }
}

/// Whether a decision changes nothing but the time of the next check.
pub(super) fn changes_nothing(snapshot: &SessionSnapshot, decision: &Decision) -> bool {
    let mut before = snapshot.session.state.clone();
    before.next_check_at = decision.state.next_check_at;
    decision.actions.is_empty() && decision.events.is_empty() && before == decision.state
}
