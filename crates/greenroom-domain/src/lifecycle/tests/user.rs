//! Rules for the user.

use super::*;

#[test]
fn user_who_joined_and_left_between_observations_activates_session() {
    let mut session = started();
    session.state.user_joined_at = Some(at(20));
    session.state.user_left_at = Some(at(21));
    let decision = decide(&session, Some(&room(&[AGENT])), at(22));
    assert_eq!(decision.state.status, SessionStatus::Active);
    assert_eq!(decision.state.started_at, Some(at(20)), "the time of the join");
    assert_eq!(decision.state.end_by, Some(at(20 + 7200)));
    // If the room has closed since then, the session becomes active and ends at once.
    session.state.room_finished_at = Some(at(81));
    let decision = decide(&session, Some(&no_room()), at(82));
    assert_eq!(ending(&decision), (SessionStatus::Ended, Some(EndReason::UserLeft)));
}

#[test]
fn join_activates_session() {
    let session = started();
    let decision = decide(&session, Some(&room(&[USER])), at(20));
    assert_eq!(decision.state.status, SessionStatus::Active);
    assert_eq!(decision.state.started_at, Some(at(20)));
    assert_eq!(decision.state.end_by, Some(at(20 + 7200)));
    let joined = Event { event: TimelineEvent::UserJoined, sid: Some("PA_ann".to_owned()) };
    assert_eq!(decision.events, [joined]);
}

#[test]
fn other_participants_do_not_activate_session() {
    let session = started();
    let mut observation = room(&["recorder"]);
    observation.participants.push(participant("ben", ParticipantKind::User));
    // Another kind of participant with the user's identity is not the user.
    observation.participants.push(participant(USER, ParticipantKind::Other));
    assert_unchanged(&session, &decide(&session, Some(&observation), at(3)));
}

#[test]
fn on_join_agent_counts_as_dispatched_at_join() {
    let session = on_join(started());
    let decision = decide(&session, Some(&room(&[USER])), at(20));
    assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
    assert_eq!(decision.state.agent_wanted_since, Some(at(20)));
    assert_eq!(decision.actions, [], "the token dispatched the agent");
}

#[test]
fn on_join_dispatch_is_kept_before_user_is_listed() {
    // LiveKit reports the room when it opens, and the user only after they connected.
    let session = on_join(started());
    let observation = room(&[]).with_dispatches(vec![dispatch("AD_1", 1, &[])]);
    let decision = decide(&session, Some(&observation), at(20));
    assert_eq!(decision.actions, []);
    assert_eq!(decision.state.agent_status, AgentStatus::Waiting);
}

#[test]
fn departure_and_rejoin_are_recorded() {
    let session = active();
    let left = decide(&session, Some(&room(&[AGENT])), at(50));
    assert_eq!(left.state.user_left_at, Some(at(50)));
    assert_eq!(events(&left), [TimelineEvent::UserLeft]);
    let session = TrackedSession { state: left.state, ..session };
    let back = decide(&session, Some(&room(&[USER, AGENT])), at(50));
    assert!(back.state.is_user_present(), "the observation decides between equal times");
    assert_eq!(back.state.status, SessionStatus::Active);
}

#[test]
fn late_departure_webhook_does_not_override_observed_user() {
    let mut session = active();
    session.state.user_left_at = Some(at(60));
    let decision = decide(&session, Some(&room(&[USER, AGENT])), at(59));
    assert!(decision.state.is_user_present());
}

#[test]
fn session_expires_if_user_is_absent_at_join_by() {
    let mut session = started();
    session.policy.agent = None;
    session.state.agent_status = AgentStatus::None;
    let early = decide(&session, Some(&room(&[])), at(599));
    assert_ne!(early.state.status, SessionStatus::Expired);
    let late = decide(&session, Some(&room(&[])), at(600));
    assert_eq!(ending(&late), (SessionStatus::Expired, Some(EndReason::JoinWindow)));
    let in_time = decide(&session, Some(&room(&[USER])), at(600));
    assert_eq!(in_time.state.status, SessionStatus::Active, "a present user joined in time");
    let unobserved = decide(&session, None, at(700));
    assert_eq!(unobserved.state.status, SessionStatus::Pending, "the observation failed");
    assert_eq!(unobserved.check_at, Some(at(702)), "checked again soon");
}

#[test]
fn end_is_announced_until_sent_and_max_duration_ends_session() {
    let session = active();
    let end = 10 + 7200;
    let observation = room(&[USER, AGENT]);
    assert_eq!(decide(&session, Some(&observation), at(end - 31)).actions, []);
    let notice = decide(&session, Some(&observation), at(end - 30));
    assert_eq!(notice.actions, [Action::AnnounceEnd]);
    assert_eq!(notice.check_at, Some(at(end - 28)), "tried again soon");
    let mut session = TrackedSession { state: notice.state, ..session };
    let again = decide(&session, Some(&observation), at(end - 28));
    assert_eq!(again.actions, [Action::AnnounceEnd], "not sent yet");
    session.state.learn(&Fact::EndAnnounced, at(end - 28), at(end - 28)).unwrap();
    assert_eq!(decide(&session, Some(&observation), at(end - 26)).actions, []);
    for observation in [Some(&observation), None] {
        let over = decide(&session, observation, at(end));
        assert_eq!(ending(&over), (SessionStatus::Ended, Some(EndReason::MaxDuration)));
    }
}
