//! Rules for the agent.

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "each call creates its observation")]
fn decide_at(session: &TrackedSession, observation: Observation, now: i64) -> Decision {
    decide(session, Some(&observation), at(now))
}

#[test]
fn connected_agent_is_ready() {
    let session = started();
    let decision = decide_at(&session, room(&[AGENT]), 3);
    assert_eq!(decision.state.agent_status, AgentStatus::Ready);
    assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT));
    assert_eq!(events(&decision), [TimelineEvent::AgentJoined]);
    let mut joining = room(&[AGENT]);
    joining.participants[0].is_active = false;
    let decision = decide_at(&session, joining, 3);
    assert_eq!(decision.state.agent_status, AgentStatus::Dispatched, "the agent is still joining");
}

#[test]
fn session_without_agent_ignores_agents() {
    let mut session = started();
    session.policy.agent = None;
    session.state.agent_status = AgentStatus::None;
    let decision = decide_at(&session, room(&[AGENT]).with_dispatches(vec![]), 100);
    assert_unchanged(&session, &decision);
}

#[test]
fn accepted_dispatch_is_kept_until_deadline() {
    let session = started();
    for jobs in [&[(true, "")][..], &[(true, AGENT)], &[(false, ""), (true, "")]] {
        let observation = room(&[]).with_dispatches(vec![dispatch("AD_1", 1, jobs)]);
        let decision = decide_at(&session, observation, 29);
        assert_unchanged(&session, &decision);
        assert_eq!(decision.check_at, Some(at(30)), "the agent's deadline");
    }
}

#[test]
fn lost_dispatch_is_repeated_after_six_seconds() {
    let session = started();
    for listed in
        [vec![], vec![dispatch("AD_1", 1, &[])], vec![dispatch("AD_1", 1, &[(false, "")])]]
    {
        let deleted: Vec<_> = listed.iter().map(|dispatch| delete(&dispatch.id)).collect();
        let observation = room(&[]).with_dispatches(listed);
        let early = decide_at(&session, observation.clone(), 5);
        assert_unchanged(&session, &early);
        assert_eq!(early.check_at, Some(at(6)), "when the dispatch counts as lost");
        let decision = decide_at(&session, observation, 6);
        assert_eq!(decision.actions, [deleted, vec![Action::Dispatch]].concat());
        assert_eq!(decision.state.last_dispatch_at, Some(at(6)));
        assert_eq!(decision.state.agent_wanted_since, Some(at(0)), "the deadline does not move");
        assert_eq!(events(&decision), [TimelineEvent::AgentDispatched]);
    }
}

#[test]
fn agent_is_not_dispatched_without_dispatch_list() {
    let session = started();
    assert_unchanged(&session, &decide_at(&session, room(&[]), 20));
    assert_unchanged(&session, &decide(&session, None, at(40)));
}

#[test]
fn missing_required_agent_fails_session_at_deadline() {
    let session = started();
    let decision = decide_at(&session, room(&[]).with_dispatches(vec![]), 30);
    assert_eq!(ending(&decision), (SessionStatus::Failed, Some(EndReason::AgentUnavailable)));
    assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
    let expected = [TimelineEvent::AgentUnavailable, TimelineEvent::Failed];
    assert_eq!(events(&decision), expected);
}

#[test]
fn missing_optional_agent_becomes_unavailable_permanently() {
    let session = with_agent_policy(started(), |agent| agent.required = false);
    let late = room(&[]).with_dispatches(vec![dispatch("AD_1", 1, &[(true, "")])]);
    let decision = decide_at(&session, late, 30);
    assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
    assert_eq!(decision.state.status, SessionStatus::Pending);
    assert_eq!(decision.actions, [delete("AD_1")]);
    let session = TrackedSession { state: decision.state, ..session };
    assert_unchanged(&session, &decide_at(&session, room(&[AGENT]).with_dispatches(vec![]), 40));
}

#[test]
fn dispatches_of_unavailable_agent_are_deleted_until_gone() {
    let mut session = with_agent_policy(active(), |agent| agent.required = false);
    session.state.agent_status = AgentStatus::Unavailable;
    let accepted = vec![dispatch("AD_1", 1, &[(true, "")])];
    let decision = decide_at(&session, room(&[USER]).with_dispatches(accepted), 60);
    assert_eq!(decision.actions, [delete("AD_1")], "deleted again after a failure");
    assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
    let joined = vec![dispatch("AD_1", 1, &[(true, AGENT)])];
    let decision = decide_at(&session, room(&[USER, AGENT]).with_dispatches(joined), 60);
    assert_eq!(decision.actions, [delete("AD_1")]);
}

#[test]
fn one_of_two_accepted_dispatches_is_kept() {
    let session = started();
    let two = |older: &str, younger: &str| {
        vec![dispatch("AD_y", 2, &[(true, younger)]), dispatch("AD_o", 1, &[(true, older)])]
    };
    let booting = decide_at(&session, room(&[]).with_dispatches(two("", "")), 8);
    assert_eq!(booting.actions, [delete("AD_y")], "the older dispatch is kept");
    let one_joined = room(&["agent-AJ_2"]).with_dispatches(two("agent-AJ_1", "agent-AJ_2"));
    let decision = decide_at(&session, one_joined, 8);
    assert_eq!(decision.actions, [delete("AD_o")], "the dispatch of the present agent is kept");
    let both = room(&["agent-AJ_1", "agent-AJ_2"]).with_dispatches(two("agent-AJ_1", "agent-AJ_2"));
    let decision = decide_at(&session, both, 8);
    assert_eq!(decision.actions.len(), 1, "{:?}", decision.actions);
}

#[test]
fn agent_with_listed_dispatch_is_removed_if_two_are_present() {
    // When LiveKit re-opens a room after its node died or LiveKit restarted, it dispatches the
    // agent again, and the previous agent also returns.
    let crowded = room(&[USER, AGENT, "agent-AJ_2"]);
    let observation = crowded.with_dispatches(vec![dispatch("AD_2", 2, &[(true, "agent-AJ_2")])]);
    let session = active();
    let decision = decide_at(&session, observation.clone(), 100);
    assert_eq!(decision.actions, [delete("AD_2")]);
    assert_eq!(decision.check_at, Some(at(102)));
    let next_check_at = decision.state.next_check_at;
    assert_eq!(decision.state, State { next_check_at, ..session.state });
    // The same if the new agent was observed first.
    let mut session = active();
    session.state.agent_identity = Some("agent-AJ_2".to_owned());
    let decision = decide_at(&session, observation, 100);
    assert_eq!(decision.actions, [delete("AD_2")]);
    assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT), "the unlisted agent stays");
}

#[test]
fn dispatch_of_second_agent_is_deleted_before_its_job_is_listed() {
    let crowded = room(&[USER, AGENT, "agent-AJ_2"]);
    let observation = crowded.with_dispatches(vec![dispatch("AD_2", 2, &[])]);
    let mut session = active();
    session.state.last_dispatch_at = Some(at(94));
    let decision = decide_at(&session, observation.clone(), 100);
    assert_eq!(decision.actions, [delete("AD_2")]);
    assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT));
    // A dispatch of the last six seconds may have brought either agent.
    session.state.last_dispatch_at = Some(at(95));
    assert_eq!(decide_at(&session, observation, 100).actions, []);
}

#[test]
fn foreign_agent_does_not_become_ready() {
    let foreign = Dispatch { owner: DispatchOwner::Other, ..dispatch("AD_2", 2, &[(true, AGENT)]) };
    let observation = room(&[AGENT]).with_dispatches(vec![dispatch("AD_1", 1, &[]), foreign]);
    let decision = decide_at(&started(), observation, 4);
    assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
    assert_eq!(decision.actions, [], "the foreign dispatch is kept");
}

#[test]
fn unnamed_dispatch_is_deleted() {
    let unnamed = Dispatch { owner: DispatchOwner::Unnamed, ..dispatch("AD_2", 2, &[]) };
    let observation =
        room(&[USER, AGENT]).with_dispatches(vec![dispatch("AD_1", 1, &[(true, AGENT)]), unnamed]);
    let decision = decide_at(&active(), observation, 100);
    assert_eq!(decision.actions, [delete("AD_2")]);
    assert_eq!(decision.state.agent_status, AgentStatus::Ready);
}

#[test]
fn possibly_foreign_agent_does_not_replace_session_agent() {
    // The agent of a foreign dispatch has joined, and LiveKit does not list its job yet.
    for owner in [DispatchOwner::Other, DispatchOwner::Unnamed] {
        let foreign = Dispatch { owner, ..dispatch("AD_2", 2, &[]) };
        let listed = vec![dispatch("AD_1", 1, &[(true, AGENT)]), foreign];
        for present in [[USER, AGENT, "agent-AJ_2"], [USER, "agent-AJ_2", AGENT]] {
            for session in [active(), started()] {
                let decision =
                    decide_at(&session, room(&present).with_dispatches(listed.clone()), 12);
                assert!(!decision.actions.contains(&delete("AD_1")), "{owner:?}");
                assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT));
            }
        }
        let alone = room(&["agent-AJ_2"]).with_dispatches(listed);
        let decision = decide_at(&started(), alone, 4);
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched, "{owner:?}");
    }
}

#[test]
fn foreign_agent_hangup_keeps_session_open() {
    let mut session = with_agent_policy(started(), |agent| agent.on_hangup = OnAgentHangup::End);
    session.state.agent_left_at = Some(at(4));
    session.state.agent_left_identity = Some("agent-AJ_2".to_owned());
    session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
    let foreign =
        Dispatch { owner: DispatchOwner::Other, ..dispatch("AD_2", 2, &[(true, "agent-AJ_2")]) };
    let own = dispatch("AD_1", 1, &[(true, "")]);
    let decision = decide_at(&session, room(&[USER]).with_dispatches(vec![own, foreign]), 5);
    assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
    assert_eq!(decision.state.status, SessionStatus::Active);
    assert_eq!(decision.actions, []);
}

#[test]
fn single_agent_keeps_its_dispatch_whatever_job_is_listed() {
    let session = active();
    for jobs in [&[][..], &[(true, "")], &[(true, AGENT)], &[(true, "agent-AJ_9")]] {
        let observation = room(&[USER, AGENT]).with_dispatches(vec![dispatch("AD_1", 1, jobs)]);
        assert_unchanged(&session, &decide_at(&session, observation, 100));
    }
}

#[test]
fn agent_missed_by_one_observation_has_not_left() {
    let session = active();
    let missed = decide_at(&session, room(&[USER]).with_dispatches(vec![]), 100);
    let session = TrackedSession { state: missed.state, ..session };
    let back = decide_at(&session, room(&[USER, AGENT]).with_dispatches(vec![]), 101);
    assert_eq!(back.state.agent_status, AgentStatus::Ready);
    assert_eq!(back.state.agent_left_at, None, "the agent has not left");
    let again = TrackedSession { state: back.state, ..session };
    let observation = room(&[USER, AGENT]).with_dispatches(vec![]);
    assert_unchanged(&again, &decide_at(&again, observation, 140));
}

/// Removes the agent from the room, and decides at the first observation without it and, after
/// the departure was reported with `reason`, two seconds later.
fn lose_agent(mut session: TrackedSession, reason: Option<&str>) -> (TrackedSession, Decision) {
    session.state.agent_left_reason = None;
    let first = decide_at(&session, room(&[USER]), 100);
    assert_eq!(first.state.agent_left_at, Some(at(100)));
    assert_eq!(first.check_at, Some(at(102)));
    assert_eq!(first.state.agent_status, AgentStatus::Ready, "the webhook may still arrive");
    let mut session = TrackedSession { state: first.state, ..session };
    session.state.agent_left_reason = reason.map(str::to_owned);
    let observation = room(&[USER]).with_dispatches(vec![dispatch("AD_1", 1, &[(true, AGENT)])]);
    let second = decide_at(&session, observation, 102);
    (session, second)
}

#[test]
fn crashed_agent_is_replaced_with_new_deadline() {
    for reason in [None, Some("CONNECTION_TIMEOUT"), Some("PARTICIPANT_REMOVED")] {
        let (_, decision) = lose_agent(active(), reason);
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched, "{reason:?}");
        assert_eq!(decision.state.agent_wanted_since, Some(at(102)));
        assert_eq!(
            decision.actions,
            [delete("AD_1"), Action::Dispatch],
            "the old job is listed as running"
        );
    }
}

#[test]
fn agent_hangup_follows_on_agent_hangup_setting() {
    let (_, kept) = lose_agent(active(), Some(CLIENT_INITIATED));
    assert_eq!(kept.state.agent_status, AgentStatus::Left);
    assert_eq!(kept.state.status, SessionStatus::Active);
    let ends = with_agent_policy(active(), |agent| agent.on_hangup = OnAgentHangup::End);
    let (_, ended) = lose_agent(ends, Some(CLIENT_INITIATED));
    assert_eq!(ending(&ended), (SessionStatus::Ended, Some(EndReason::AgentLeft)));
}

#[test]
fn agent_hangup_without_user_keeps_session_open() {
    let mut session = with_agent_policy(active(), |agent| agent.on_hangup = OnAgentHangup::End);
    session.state.user_left_at = Some(at(50));
    session.state.agent_left_at = Some(at(51));
    session.state.agent_left_identity = Some(AGENT.to_owned());
    session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
    let decision = decide_at(&session, room(&[]), 52);
    assert_eq!(decision.state.agent_status, AgentStatus::Left);
    assert_eq!(decision.state.status, SessionStatus::Active);
}

#[test]
fn agent_hangup_between_observations_is_recorded() {
    let mut session = started();
    session.state.agent_left_at = Some(at(2));
    session.state.agent_left_identity = Some(AGENT.to_owned());
    session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
    let decision = decide_at(&session, room(&[]).with_dispatches(vec![]), 4);
    assert_eq!(decision.state.agent_status, AgentStatus::Left);
    assert_eq!(decision.actions, []);
}

#[test]
fn agent_that_left_with_user_is_requested_when_user_returns() {
    // When the user reloads the page, the agent hangs up after the user left.
    for on_hangup in [OnAgentHangup::Keep, OnAgentHangup::End] {
        let mut session = with_agent_policy(active(), |agent| agent.on_hangup = on_hangup);
        session.state.user_left_at = Some(at(100));
        session.state.user_joined_at = Some(at(101));
        session.state.agent_left_at = Some(at(102));
        session.state.agent_left_identity = Some(AGENT.to_owned());
        session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
        let decision = decide_at(&session, room(&[USER]).with_dispatches(vec![]), 102);
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
        assert_eq!(decision.actions, [Action::Dispatch]);
    }
}

#[test]
fn agent_hangup_at_user_departure_keeps_session_open() {
    let mut session = with_agent_policy(active(), |agent| agent.on_hangup = OnAgentHangup::End);
    session.state.user_left_at = Some(at(100));
    session.state.agent_left_at = Some(at(100));
    session.state.agent_left_identity = Some(AGENT.to_owned());
    session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
    let decision = decide_at(&session, room(&[]), 101);
    assert_eq!(decision.state.agent_status, AgentStatus::Left);
    assert_eq!(decision.state.status, SessionStatus::Active, "the reconnect window is open");
}

#[test]
fn old_dispatches_are_deleted_if_current_agent_is_listed() {
    let mut session = active();
    session.state.agent_identity = Some("agent-AJ_2".to_owned());
    session.state.agent_left_identity = Some(AGENT.to_owned());
    session.state.agent_left_reason = Some("CONNECTION_TIMEOUT".to_owned());
    let observation = room(&[USER, "agent-AJ_2"]).with_dispatches(vec![
        dispatch("AD_1", 1, &[(true, AGENT)]),
        dispatch("AD_2", 2, &[(true, "agent-AJ_2")]),
    ]);
    assert_eq!(decide_at(&session, observation, 100).actions, [delete("AD_1")]);
}

#[test]
fn agent_with_reported_departure_is_ignored_if_still_listed() {
    let mut session = active();
    session.state.agent_left_at = Some(at(99));
    session.state.agent_left_identity = Some(AGENT.to_owned());
    session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
    let decision = decide_at(&session, room(&[USER, AGENT]), 100);
    assert_eq!(decision.state.agent_status, AgentStatus::Left);
}

#[test]
fn lost_agent_is_not_replaced_until_user_rejoins() {
    let mut session = active();
    session.state.user_left_at = Some(at(90));
    let first = decide_at(&session, room(&[]), 100);
    let session = TrackedSession { state: first.state, ..session };
    let observation = room(&[]).with_dispatches(vec![dispatch("AD_1", 1, &[(true, AGENT)])]);
    let second = decide_at(&session, observation, 102);
    assert_eq!(second.state.agent_status, AgentStatus::Waiting);
    assert_eq!(second.actions, [delete("AD_1")]);
    let session = TrackedSession { state: second.state, ..session };
    let back = decide_at(&session, room(&[USER]).with_dispatches(vec![]), 110);
    assert_eq!(back.state.agent_status, AgentStatus::Dispatched);
    assert_eq!(back.actions, [Action::Dispatch]);
}

#[test]
fn rejoining_user_requests_agent_that_hung_up() {
    let (session, left) = lose_agent(active(), Some(CLIENT_INITIATED));
    let session = TrackedSession { state: left.state, ..session };
    assert_unchanged(&session, &decide_at(&session, room(&[USER]), 110));
    let out = decide_at(&session, room(&[]), 120);
    let session = TrackedSession { state: out.state, ..session };
    let old = vec![dispatch("AD_1", 1, &[(true, AGENT)])];
    let back = decide_at(&session, room(&[USER]).with_dispatches(old), 130);
    assert_eq!(back.state.agent_status, AgentStatus::Dispatched);
    assert_eq!(back.state.agent_wanted_since, Some(at(130)));
    assert_eq!(back.actions, [delete("AD_1"), Action::Dispatch]);
}

#[test]
fn agent_crashed_before_join_is_replaced() {
    let mut session = started();
    session.state.agent_status = AgentStatus::Ready;
    session.state.agent_identity = Some(AGENT.to_owned());
    let first = decide_at(&session, room(&[]), 100);
    let session = TrackedSession { state: first.state, ..session };
    let second = decide_at(&session, room(&[]).with_dispatches(vec![]), 102);
    assert_eq!(second.actions, [Action::Dispatch]);
}
