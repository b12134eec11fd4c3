//! A session that is over, and its room.

use super::*;

fn ended() -> TrackedSession {
    let mut session = active();
    session.state.status = SessionStatus::Ended;
    session.state.end_reason = Some(EndReason::Requested);
    session.state.ended_at = Some(at(100));
    session
}

#[test]
fn room_is_deleted_until_observed_as_gone() {
    let session = ended();
    for (now, pause) in [(102, 2), (140, 20), (500, 60)] {
        let decision = decide(&session, Some(&room(&[USER])), at(now));
        assert_eq!(decision.actions, [Action::DeleteRoom]);
        assert_eq!(decision.check_at, Some(at(now + pause)));
        let failed = decide(&session, None, at(now));
        assert_eq!(failed.actions, []);
        assert_eq!(failed.check_at, Some(at(now + pause)), "LiveKit fails");
    }
}

/// Two concurrent deletions can make LiveKit open the room again and dispatch its agent.
#[test]
fn room_is_left_to_the_process_that_ended_the_session_for_two_seconds() {
    let mut session = ended();
    let decision = decide(&session, Some(&room(&[USER])), at(101));
    assert_eq!((decision.actions.len(), decision.check_at), (0, Some(at(102))));
    assert!(decide(&session, Some(&no_room()), at(101)).state.room_gone_at.is_some());
    session.state.end_reason = Some(EndReason::UserLeft);
    let decision = decide(&session, Some(&room(&[USER])), at(101));
    assert_eq!(decision.actions, [Action::DeleteRoom], "the keeper ended it");
}

#[test]
fn time_of_the_last_check_is_stored_when_the_session_ends() {
    let mut session = active();
    session.state.end_by = Some(at(300));
    let over = decide(&session, Some(&room(&[USER])), at(300));
    let stored = over.state.next_check_at.unwrap();
    session.state = over.state;
    let gone = decide(&session, Some(&no_room()), at(303));
    assert_eq!(gone.state.next_check_at, Some(stored));
    session.state = gone.state;
    assert!(decide(&session, Some(&no_room()), stored - seconds(1)).check_at == Some(stored));
    assert_eq!(decide(&session, Some(&no_room()), stored).check_at, None);
}

#[test]
fn deleted_room_is_checked_until_last_token_expires() {
    for (token_expiry, last) in [(at(3600), at(3660)), (at(200), at(110 + 660))] {
        let session = TrackedSession { token_expiry, ..ended() };
        let gone = decide(&session, Some(&no_room()), at(110));
        assert_eq!(gone.state.room_gone_at, Some(at(110)));
        assert_eq!(gone.check_at, Some(at(125)), "a late job");
        let session = TrackedSession { state: gone.state, ..session };
        let still_gone = decide(&session, Some(&no_room()), at(125));
        assert_eq!(still_gone.check_at, Some(last));
        let session = TrackedSession { state: still_gone.state, ..session };
        let done = decide(&session, Some(&no_room()), last);
        assert_eq!(done.check_at, None, "no token can open the room");
        let again = decide(&session, Some(&room(&[USER])), last);
        assert_eq!(
            (again.actions.len(), again.state.room_gone_at),
            (1, None),
            "the room was re-created"
        );
    }
}
