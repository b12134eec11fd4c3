//! Rules for the room.

use super::*;

#[test]
fn on_join_session_waits_without_room_until_user_joins() {
    let session = on_join(started());
    let decision = decide(&session, Some(&no_room()), at(30));
    assert_unchanged(&session, &decision);
    assert_eq!(decision.check_at, Some(at(60)), "the reconcile interval");
}

#[test]
fn room_known_only_from_observation_is_recorded() {
    let mut session = started();
    session.state.room_created_at = None;
    session.state.agent_status = AgentStatus::Waiting;
    session.state.agent_wanted_since = None;
    session.state.last_dispatch_at = None;
    let decision = decide(&session, Some(&room(&[])), at(7));
    assert_eq!(decision.state.room_created_at, Some(at(7)));
    assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
    assert_eq!(decision.state.agent_wanted_since, Some(at(7)));
    assert_eq!(events(&decision), [TimelineEvent::RoomCreated, TimelineEvent::AgentDispatched]);
}

#[test]
fn dispatch_of_room_known_only_from_webhook_is_recorded() {
    let mut session = started();
    session.state.agent_status = AgentStatus::Waiting;
    session.state.agent_wanted_since = None;
    session.state.last_dispatch_at = None;
    let observation = room(&[]).with_dispatches(vec![dispatch("AD_1", 1, &[])]);
    let decision = decide(&session, Some(&observation), at(1));
    assert_eq!(decision.actions, [], "the dispatch is kept");
    assert_eq!(decision.state.agent_wanted_since, Some(at(1)));
    assert_eq!(events(&decision), [TimelineEvent::AgentDispatched]);
}

#[test]
fn session_fails_if_room_is_not_opened_within_one_minute() {
    let mut session = started();
    session.state.room_created_at = None;
    let early = decide(&session, Some(&no_room()), at(59));
    assert_eq!(early.state.status, SessionStatus::Pending);
    assert_eq!(early.check_at, Some(at(60)));
    let late = decide(&session, Some(&no_room()), at(60));
    assert_eq!(ending(&late), (SessionStatus::Failed, Some(EndReason::LiveKitError)));
}

#[test]
fn start_is_not_failed_while_its_room_may_exist() {
    let mut session = started();
    session.state.room_created_at = None;
    let decision = decide(&session, None, at(60));
    assert_unchanged(&session, &decision);
    assert_eq!(decision.check_at, Some(at(62)), "checked again soon");
}

#[test]
fn listed_room_that_cannot_be_observed_is_recorded() {
    let mut session = started();
    session.state.room_created_at = None;
    let decision = decide_listed(&session, ROOM, at(60));
    assert_eq!(decision.state.status, SessionStatus::Pending);
    assert_eq!(decision.state.room_created_at, Some(at(60)));
    assert_eq!(decision.check_at, Some(at(62)), "checked again soon");
    let created = Event { event: TimelineEvent::RoomCreated, sid: Some(ROOM.to_owned()) };
    assert_eq!((decision.events, decision.actions), (vec![created], vec![]));
    let recorded = TrackedSession { state: decision.state, ..session };
    assert_unchanged(&recorded, &decide_listed(&recorded, ROOM, at(62)));
    // A maximum duration ends the session without an observation.
    let over = decide_listed(&active(), ROOM, at(10 + 7200));
    assert_eq!(ending(&over), (SessionStatus::Ended, Some(EndReason::MaxDuration)));
}

/// A room may be listed although its node is gone.
#[test]
fn listed_room_that_cannot_be_observed_stays_missing() {
    let mut session = active();
    session.state.room_missing_since = Some(at(90));
    assert_unchanged(&session, &decide_listed(&session, ROOM, at(100)));
}

#[test]
fn room_lost_before_join_is_reopened_with_agent() {
    let session = started();
    let decision = decide(&session, Some(&no_room()), at(100));
    assert_eq!(decision.actions, [Action::OpenRoom { dispatches_agent: true }]);
    assert_eq!(decision.state.agent_wanted_since, Some(at(100)), "the deadline starts again");
    assert_eq!(decision.state.last_dispatch_at, Some(at(100)));
    assert_eq!(decision.state.status, SessionStatus::Pending);
    assert_eq!(events(&decision), [TimelineEvent::AgentDispatched]);
}

#[test]
fn missing_room_is_reopened_until_observed_with_one_timeline_event() {
    let missed = decide(&started(), Some(&no_room()), at(100));
    let session = TrackedSession { state: missed.state, ..started() };
    let again = decide(&session, Some(&no_room()), at(102));
    assert_eq!(again.actions, [Action::OpenRoom { dispatches_agent: true }]);
    assert_eq!(again.state.agent_wanted_since, Some(at(102)), "each call dispatches the agent");
    assert_eq!(events(&again), []);
    let session = TrackedSession { state: again.state, ..started() };
    let opened = decide(&session, Some(&room(&[]).with_dispatches(vec![])), at(104));
    assert_eq!(opened.state.room_missing_since, None);
}

#[test]
fn reopened_room_does_not_dispatch_unavailable_agent() {
    let mut session = with_agent_policy(started(), |agent| agent.required = false);
    session.state.agent_status = AgentStatus::Unavailable;
    let decision = decide(&session, Some(&no_room()), at(100));
    assert_eq!(decision.actions, [Action::OpenRoom { dispatches_agent: false }]);
    assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
    assert_eq!(events(&decision), []);
}

#[test]
fn room_finished_before_join_is_reopened() {
    let mut session = started();
    session.state.room_finished_at = Some(at(50));
    let decision = decide(&session, Some(&no_room()), at(51));
    assert_eq!(decision.actions, [Action::OpenRoom { dispatches_agent: true }]);
}

#[test]
fn missing_active_room_ends_session_after_reconnect_window() {
    let session = active();
    let gone = decide(&session, Some(&no_room()), at(100));
    assert_eq!(gone.state.room_missing_since, Some(at(100)));
    assert_eq!((gone.state.status, gone.actions.len()), (SessionStatus::Active, 0));
    assert!(gone.state.is_user_present(), "a missing room does not mean that its user left");
    let missing = TrackedSession { state: gone.state, ..session };

    let back = decide(&missing, Some(&room(&[USER, AGENT])), at(159));
    assert_eq!(back.state.room_missing_since, None);
    let over = decide(&missing, Some(&no_room()), at(160));
    assert_eq!(ending(&over), (SessionStatus::Ended, Some(EndReason::RoomClosed)));
}

#[test]
fn finished_room_ends_session_with_reason_by_departure_time() {
    for (left, reason) in [
        (None, EndReason::RoomClosed),
        (Some(at(142)), EndReason::UserLeft),
        (Some(at(143)), EndReason::RoomClosed),
    ] {
        let mut session = active();
        session.state.user_left_at = left;
        session.state.room_finished_at = Some(at(200));
        let decision = decide(&session, Some(&no_room()), at(201));
        assert_eq!(ending(&decision), (SessionStatus::Ended, Some(reason)), "{left:?}");
    }
}

#[test]
fn room_finished_is_ignored_if_room_exists_or_user_joined_later() {
    let mut session = active();
    session.state.room_finished_at = Some(at(200));
    let decision = decide(&session, Some(&room(&[USER, AGENT])), at(201));
    assert_unchanged(&session, &decision);
    // A room_finished before the user's join is about an earlier room.
    session.state.room_finished_at = Some(at(5));
    let decision = decide(&session, Some(&no_room()), at(201));
    assert_eq!(decision.state.status, SessionStatus::Active);
}

#[test]
fn observed_departure_ends_session_without_webhooks() {
    let session = active();
    let left = decide(&session, Some(&room(&[AGENT])), at(100));
    let session = TrackedSession { state: left.state, ..session };
    let over = decide(&session, Some(&no_room()), at(165));
    assert_eq!(ending(&over), (SessionStatus::Ended, Some(EndReason::UserLeft)));
    // Before the reconnect window has passed, the user may return.
    let early = decide(&session, Some(&no_room()), at(157));
    assert_eq!(early.state.status, SessionStatus::Active);
}
