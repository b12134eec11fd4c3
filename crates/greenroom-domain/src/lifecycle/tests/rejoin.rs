//! An agent that joins again.

use super::*;

#[test]
fn agent_that_is_joining_again_has_not_left() {
    let session = active();
    let mut observation = room(&[USER, AGENT]);
    for participant in &mut observation.participants {
        participant.is_active &= participant.identity == USER;
    }
    let decision = decide(&session, Some(&observation), at(100));
    assert_eq!((decision.events, decision.actions), (vec![], vec![]));
    assert_eq!(decision.state.agent_status, AgentStatus::Ready);
    assert_eq!(decision.check_at, Some(at(102)), "checked again soon");
    let gone = decide(&session, Some(&room(&[USER])), at(102));
    assert_eq!(gone.events.len(), 1, "the agent has left: {gone:?}");
}
