//! The time of the next check, and the calls that it needs.

use super::*;

#[test]
fn sessions_checked_together_are_not_checked_together_again() {
    let mut intervals: Vec<_> = (0..=u8::MAX)
        .map(|byte| {
            let session = TrackedSession { id: SessionId::new(at(0), [byte; 10]), ..active() };
            let idle = decide(&session, Some(&room(&[USER, AGENT])), at(100));
            (idle.check_at.unwrap() - at(100)).num_milliseconds()
        })
        .collect();
    intervals.dedup();
    assert_eq!(intervals.len(), 256);
    assert!(intervals.iter().all(|interval| (24_000..=36_000).contains(interval)));
}

#[test]
fn check_without_consequence_changes_nothing_until_the_next_deadline() {
    let mut session = active();
    let present = room(&[USER, AGENT]);
    session.state = decide(&session, Some(&present), at(100)).state;
    let notice = session.state.end_by.unwrap() - END_NOTICE;
    assert_eq!(session.state.next_check_at, Some(notice), "the next deadline is stored");
    let mut now = at(100);
    while now < notice {
        for observation in [Some(&present), None] {
            let decision = decide(&session, observation, now);
            assert_eq!(decision.state, session.state, "at {now}");
        }
        now = decide(&session, Some(&present), now).check_at.unwrap();
    }
    assert_eq!(now, notice, "the last check is exact");
    assert_eq!(decide(&session, Some(&present), now).actions, [Action::AnnounceEnd]);
}

#[test]
fn only_fixed_deadlines_are_stored() {
    let mut session = started();
    session.state.next_check_at = Some(session.join_by);
    let dispatched = decide(&session, Some(&room(&[]).with_dispatches(vec![])), at(3));
    assert_eq!(dispatched.check_at, Some(at(5)), "an agent is on its way");
    assert_eq!(dispatched.state.next_check_at, Some(session.join_by));
    let mut session = active();
    session.state.next_check_at = Some(at(90));
    let missing = decide(&session, Some(&no_room()), at(100));
    assert!(missing.check_at.unwrap() < at(110), "{:?}", missing.check_at);
    let notice = session.state.end_by.unwrap() - END_NOTICE;
    assert_eq!(missing.state.next_check_at, Some(notice));
}

#[test]
fn unobserved_session_without_deadline_is_stored_once_a_minute() {
    let mut session = active();
    session.state.end_by = None;
    session.state.next_check_at = Some(at(100));
    let first = decide(&session, None, at(100));
    assert_eq!((first.check_at, first.state.next_check_at), (Some(at(102)), Some(at(160))));
    session.state = first.state;
    let second = decide(&session, None, at(102));
    assert_eq!((second.check_at, second.state.next_check_at), (Some(at(104)), Some(at(160))));
}

#[test]
fn missing_room_is_checked_less_often_but_its_deadline_is_exact() {
    let mut session = active();
    session.policy.reconnect_window = seconds(600);
    let (mut now, mut checks) = (100, 0);
    let over = loop {
        let decision = decide(&session, Some(&no_room()), at(now));
        if decision.state.is_over() {
            break decision;
        }
        now = decision.check_at.unwrap().timestamp() - at(0).timestamp();
        session.state = decision.state;
        checks += 1;
    };
    assert_eq!(over.state.ended_at, Some(at(700)));
    assert!(checks < 25, "{checks} checks");
}

#[test]
fn dispatches_are_required_only_while_the_agent_is_not_as_expected() {
    let need = |session: &TrackedSession, names: &[&str]| {
        session.dispatches_need(&room(names).participants)
    };
    let ready = active();
    assert_eq!(need(&ready, &[USER, AGENT]), DispatchesNeed::Occasional);
    assert_eq!(need(&ready, &[USER]), DispatchesNeed::Required, "the agent is gone");
    assert_eq!(need(&ready, &[AGENT, "agent-AJ_2"]), DispatchesNeed::Required, "two agents");
    assert_eq!(need(&ready, &["agent-AJ_2"]), DispatchesNeed::Required, "another agent");
    assert_eq!(need(&started(), &[USER]), DispatchesNeed::Required, "on its way");
    let mut unavailable = active();
    unavailable.state.agent_status = AgentStatus::Unavailable;
    assert_eq!(need(&unavailable, &[USER]), DispatchesNeed::Occasional);
    assert_eq!(need(&unavailable, &[AGENT]), DispatchesNeed::Required, "it came late");
    let mut without_agent = started();
    without_agent.policy.agent = None;
    without_agent.state.agent_status = AgentStatus::None;
    assert_eq!(need(&without_agent, &[USER]), DispatchesNeed::None);
    without_agent.state.status = SessionStatus::Active;
    assert_eq!(need(&without_agent, &[USER]), DispatchesNeed::Occasional);
}
