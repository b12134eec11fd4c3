//! Tests of the lifecycle decision: one per rule, and properties that hold for all observations.

use proptest::prelude::*;

use super::*;
use crate::{OnAgentHangup, ParticipantIdentity, RoomCreation, SessionId};

const ROOM: &str = "RM_1";
const USER: &str = "ann";
const AGENT: &str = "agent-AJ_1";
const CLIENT_INITIATED: &str = "CLIENT_INITIATED";

/// Returns the time `seconds` after the session was created.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// Returns a session after its start: the room is open and the agent dispatched.
fn started() -> TrackedSession {
    let state = State {
        status: SessionStatus::Pending,
        agent_status: AgentStatus::Dispatched,
        room_creation: RoomCreation::OnStart,
        end_reason: None,
        started_at: None,
        ended_at: None,
        end_by: None,
        room_created_at: Some(at(0)),
        room_missing_since: None,
        room_finished_at: None,
        room_gone_at: None,
        user_joined_at: None,
        user_left_at: None,
        agent_wanted_since: Some(at(0)),
        last_dispatch_at: Some(at(0)),
        agent_identity: None,
        agent_left_at: None,
        agent_left_reason: None,
        agent_left_identity: None,
        ending_notified_at: None,
        next_check_at: Some(at(6)),
    };
    let agent =
        AgentPolicy { deadline: seconds(30), required: true, on_hangup: OnAgentHangup::Keep };
    let policy = SessionPolicy {
        agent: Some(agent),
        reconnect_window: seconds(60),
        max_duration: seconds(7200),
        reconcile_every: seconds(30),
    };
    TrackedSession {
        // Its interval is the mean interval.
        id: SessionId::new(at(0), [0x80; 10]),
        policy,
        participant_identity: ParticipantIdentity::try_from(USER.to_owned()).unwrap(),
        created_at: at(0),
        join_by: at(600),
        token_expiry: at(3600),
        state,
    }
}

/// Returns an active session: its user joined at `at(10)`, and its agent is ready.
fn active() -> TrackedSession {
    let mut session = started();
    let state = &mut session.state;
    state.status = SessionStatus::Active;
    state.agent_status = AgentStatus::Ready;
    state.started_at = Some(at(10));
    state.end_by = Some(at(10 + 7200));
    state.user_joined_at = Some(at(10));
    state.agent_identity = Some(AGENT.to_owned());
    session
}

/// Changes a started session to `on_join`: no room and no dispatch before the user joins.
fn on_join(mut session: TrackedSession) -> TrackedSession {
    session.state.room_creation = RoomCreation::OnJoin;
    session.state.agent_status = AgentStatus::Waiting;
    session.state.room_created_at = None;
    session.state.agent_wanted_since = None;
    session.state.last_dispatch_at = None;
    session
}

fn with_agent_policy(
    mut session: TrackedSession,
    change: impl FnOnce(&mut AgentPolicy),
) -> TrackedSession {
    change(session.policy.agent.as_mut().unwrap());
    session
}

fn participant(identity: &str, kind: ParticipantKind) -> Participant {
    let sid = format!("PA_{identity}");
    Participant { identity: identity.to_owned(), sid, kind, is_active: true }
}

/// Returns an observation of the room with these participants and no list of dispatches.
fn room(identities: &[&str]) -> Observation {
    let kind = |identity: &str| match identity {
        USER => ParticipantKind::User,
        _ if identity.starts_with("agent-") => ParticipantKind::Agent,
        _ => ParticipantKind::Other,
    };
    let all = identities.iter().map(|identity| participant(identity, kind(identity)));
    Observation { room: Some(ROOM.to_owned()), participants: all.collect(), dispatches: None }
}

fn no_room() -> Observation {
    Observation::default()
}

fn dispatch(id: &str, created_at: i64, jobs: &[(bool, &str)]) -> Dispatch {
    let job = |(is_live, identity): &(bool, &str)| Job {
        is_live: *is_live,
        participant_identity: (*identity).to_owned(),
    };
    let jobs = jobs.iter().map(job).collect();
    Dispatch { id: id.to_owned(), owner: DispatchOwner::Session, created_at, jobs }
}

impl Observation {
    fn with_dispatches(mut self, dispatches: Vec<Dispatch>) -> Self {
        self.dispatches = Some(dispatches);
        self
    }
}

fn delete(id: &str) -> Action {
    Action::DeleteDispatch(id.to_owned())
}

fn events(decision: &Decision) -> Vec<TimelineEvent> {
    decision.events.iter().map(|event| event.event).collect()
}

/// Returns status and reason of a decision that ends the session.
fn ending(decision: &Decision) -> (SessionStatus, Option<EndReason>) {
    assert_eq!(decision.actions, [Action::DeleteRoom], "the room is deleted");
    assert!(decision.state.ended_at.is_some() && decision.state.next_check_at.is_some());
    (decision.state.status, decision.state.end_reason)
}

fn assert_unchanged(session: &TrackedSession, decision: &Decision) {
    let next_check_at = decision.state.next_check_at;
    assert_eq!(decision.state, State { next_check_at, ..session.state.clone() });
    assert_eq!((&decision.events[..], &decision.actions[..]), (&[][..], &[][..]));
}

mod rooms {
    use super::*;

    #[test]
    fn on_join_session_waits_without_room_until_user_joins() {
        let session = on_join(started());
        let decision = decide(&session, Some(&no_room()), at(30));
        assert_unchanged(&session, &decision);
        assert_eq!(decision.state.next_check_at, Some(at(60)), "the reconcile interval");
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
        for observation in [Some(&no_room()), None] {
            let early = decide(&session, observation, at(59));
            assert_eq!(early.state.status, SessionStatus::Pending);
            assert_eq!(early.state.next_check_at, Some(at(60)));
            let late = decide(&session, observation, at(60));
            assert_eq!(
                ending(&late),
                (SessionStatus::Failed, Some(EndReason::LiveKitError)),
                "{observation:?}"
            );
        }
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
}

mod users {
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
        assert_eq!(unobserved.state.next_check_at, Some(at(702)), "checked again soon");
    }

    #[test]
    fn end_is_announced_until_sent_and_max_duration_ends_session() {
        let session = active();
        let end = 10 + 7200;
        let observation = room(&[USER, AGENT]);
        assert_eq!(decide(&session, Some(&observation), at(end - 31)).actions, []);
        let notice = decide(&session, Some(&observation), at(end - 30));
        assert_eq!(notice.actions, [Action::AnnounceEnd]);
        assert_eq!(notice.state.next_check_at, Some(at(end - 28)), "tried again soon");
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
}

mod agents {
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
        assert_eq!(
            decision.state.agent_status,
            AgentStatus::Dispatched,
            "the agent is still joining"
        );
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
            assert_eq!(decision.state.next_check_at, Some(at(30)), "the agent's deadline");
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
            assert_eq!(early.state.next_check_at, Some(at(6)), "when the dispatch counts as lost");
            let decision = decide_at(&session, observation, 6);
            assert_eq!(decision.actions, [deleted, vec![Action::Dispatch]].concat());
            assert_eq!(decision.state.last_dispatch_at, Some(at(6)));
            assert_eq!(
                decision.state.agent_wanted_since,
                Some(at(0)),
                "the deadline does not move"
            );
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
        assert_unchanged(
            &session,
            &decide_at(&session, room(&[AGENT]).with_dispatches(vec![]), 40),
        );
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
        let both =
            room(&["agent-AJ_1", "agent-AJ_2"]).with_dispatches(two("agent-AJ_1", "agent-AJ_2"));
        let decision = decide_at(&session, both, 8);
        assert_eq!(decision.actions.len(), 1, "{:?}", decision.actions);
    }

    #[test]
    fn agent_with_listed_dispatch_is_removed_if_two_are_present() {
        // When LiveKit re-opens a room after its node died or LiveKit restarted, it dispatches the
        // agent again, and the previous agent also returns.
        let crowded = room(&[USER, AGENT, "agent-AJ_2"]);
        let observation =
            crowded.with_dispatches(vec![dispatch("AD_2", 2, &[(true, "agent-AJ_2")])]);
        let session = active();
        let decision = decide_at(&session, observation.clone(), 100);
        assert_eq!(decision.actions, [delete("AD_2")]);
        assert_eq!(decision.state, State { next_check_at: Some(at(102)), ..session.state });
        // The same if the new agent was observed first.
        let mut session = active();
        session.state.agent_identity = Some("agent-AJ_2".to_owned());
        let decision = decide_at(&session, observation, 100);
        assert_eq!(decision.actions, [delete("AD_2")]);
        assert_eq!(
            decision.state.agent_identity.as_deref(),
            Some(AGENT),
            "the unlisted agent stays"
        );
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
        let foreign =
            Dispatch { owner: DispatchOwner::Other, ..dispatch("AD_2", 2, &[(true, AGENT)]) };
        let observation = room(&[AGENT]).with_dispatches(vec![dispatch("AD_1", 1, &[]), foreign]);
        let decision = decide_at(&started(), observation, 4);
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
        assert_eq!(decision.actions, [], "the foreign dispatch is kept");
    }

    #[test]
    fn unnamed_dispatch_is_deleted() {
        let unnamed = Dispatch { owner: DispatchOwner::Unnamed, ..dispatch("AD_2", 2, &[]) };
        let observation = room(&[USER, AGENT])
            .with_dispatches(vec![dispatch("AD_1", 1, &[(true, AGENT)]), unnamed]);
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
        let mut session =
            with_agent_policy(started(), |agent| agent.on_hangup = OnAgentHangup::End);
        session.state.agent_left_at = Some(at(4));
        session.state.agent_left_identity = Some("agent-AJ_2".to_owned());
        session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
        let foreign = Dispatch {
            owner: DispatchOwner::Other,
            ..dispatch("AD_2", 2, &[(true, "agent-AJ_2")])
        };
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
        assert_eq!(first.state.next_check_at, Some(at(102)));
        assert_eq!(first.state.agent_status, AgentStatus::Ready, "the webhook may still arrive");
        let mut session = TrackedSession { state: first.state, ..session };
        session.state.agent_left_reason = reason.map(str::to_owned);
        let observation =
            room(&[USER]).with_dispatches(vec![dispatch("AD_1", 1, &[(true, AGENT)])]);
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
}

mod schedule {
    use super::*;

    #[test]
    fn sessions_checked_together_are_not_checked_together_again() {
        let mut intervals: Vec<_> = (0..=u8::MAX)
            .map(|byte| {
                let session = TrackedSession { id: SessionId::new(at(0), [byte; 10]), ..active() };
                let idle = decide(&session, Some(&room(&[USER, AGENT])), at(100));
                (idle.state.next_check_at.unwrap() - at(100)).num_milliseconds()
            })
            .collect();
        intervals.dedup();
        assert_eq!(intervals.len(), 256);
        assert!(intervals.iter().all(|interval| (24_000..=36_000).contains(interval)));
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
            now = decision.state.next_check_at.unwrap().timestamp() - at(0).timestamp();
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
}

mod rejoin {
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
        assert_eq!(decision.state.next_check_at, Some(at(102)), "checked again soon");
        let gone = decide(&session, Some(&room(&[USER])), at(102));
        assert_eq!(gone.events.len(), 1, "the agent has left: {gone:?}");
    }
}

mod closed {
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
        for (now, pause) in [(100, 2), (102, 2), (140, 20), (500, 60)] {
            let decision = decide(&session, Some(&room(&[USER])), at(now));
            assert_eq!(decision.actions, [Action::DeleteRoom]);
            assert_eq!(decision.state.next_check_at, Some(at(now + pause)));
            let failed = decide(&session, None, at(now));
            assert_eq!(failed.actions, []);
            assert_eq!(failed.state.next_check_at, Some(at(now + pause)), "LiveKit fails");
        }
    }

    #[test]
    fn deleted_room_is_checked_until_last_token_expires() {
        for (token_expiry, last) in [(at(3600), at(3660)), (at(200), at(110 + 660))] {
            let session = TrackedSession { token_expiry, ..ended() };
            let gone = decide(&session, Some(&no_room()), at(110));
            assert_eq!(gone.state.room_gone_at, Some(at(110)));
            assert_eq!(gone.state.next_check_at, Some(at(125)), "a late job");
            let session = TrackedSession { state: gone.state, ..session };
            let still_gone = decide(&session, Some(&no_room()), at(125));
            assert_eq!(still_gone.state.next_check_at, Some(last));
            let session = TrackedSession { state: still_gone.state, ..session };
            let done = decide(&session, Some(&no_room()), last);
            assert_eq!(done.state.next_check_at, None, "no token can open the room");
            let again = decide(&session, Some(&room(&[USER])), last);
            assert_eq!(
                (again.actions.len(), again.state.room_gone_at),
                (1, None),
                "the room was re-created"
            );
        }
    }
}

/// A fact with the second of LiveKit's report.
type Report = (Fact, i64);

fn report() -> impl Strategy<Value = Report> {
    let reason =
        prop_oneof![Just(None), Just(Some(CLIENT_INITIATED)), Just(Some("CONNECTION_TIMEOUT"))];
    let fact = prop_oneof![
        Just(Fact::RoomFinished),
        Just(Fact::UserJoined { identity: USER.to_owned(), sid: "PA_1".to_owned() }),
        Just(Fact::UserLeft { identity: USER.to_owned(), sid: "PA_1".to_owned(), reason: None }),
        reason.prop_map(|reason| Fact::AgentLeft {
            identity: AGENT.to_owned(),
            sid: "PA_2".to_owned(),
            reason: reason.map(str::to_owned),
        }),
    ];
    (fact, 11_i64..400)
}

fn any_observation() -> impl Strategy<Value = Option<Observation>> {
    let job = (any::<bool>(), prop_oneof![Just(""), Just(AGENT), Just("agent-AJ_2")]);
    let owner = prop_oneof![
        8 => Just(DispatchOwner::Session),
        1 => Just(DispatchOwner::Unnamed),
        1 => Just(DispatchOwner::Other),
    ];
    let dispatches = prop::collection::vec((owner, prop::collection::vec(job, 0..3)), 0..3);
    let present = prop::sample::subsequence(vec![USER, AGENT, "agent-AJ_2", "recorder"], 0..=4);
    let some = (any::<bool>(), present, prop::option::of(dispatches)).prop_map(
        |(has_room, present, listed)| {
            let mut observation = if has_room { room(&present) } else { no_room() };
            observation.dispatches = listed.map(|listed| {
                let numbered = listed.into_iter().zip(0_i64..);
                let number = |((owner, jobs), n)| {
                    let jobs: Vec<(bool, &str)> = jobs;
                    Dispatch { owner, ..dispatch(&format!("AD_{n}"), n, &jobs) }
                };
                numbered.map(number).collect()
            });
            observation
        },
    );
    prop::option::weighted(0.9, some)
}

fn any_session() -> impl Strategy<Value = TrackedSession> {
    let required = any::<bool>();
    let ends_on_hangup = any::<bool>();
    (
        prop_oneof![Just(started()), Just(active()), Just(on_join(started()))],
        required,
        ends_on_hangup,
    )
        .prop_map(|(session, required, ends_on_hangup)| {
            with_agent_policy(session, |agent| {
                agent.required = required;
                agent.on_hangup =
                    if ends_on_hangup { OnAgentHangup::End } else { OnAgentHangup::Keep };
            })
        })
}

/// Decides with the same observation until the session needs no further check.
fn decide_until_done(
    mut session: TrackedSession,
    observation: &Observation,
    mut now: DateTime<Utc>,
) -> TrackedSession {
    for _ in 0..10_000 {
        session.state = decide(&session, Some(observation), now).state;
        match session.state.next_check_at {
            Some(next) => now = now.max(next),
            None => return session,
        }
    }
    panic!("the session still needs checks: {session:#?}");
}

proptest! {
    #[test]
    fn decision_is_independent_of_fact_order_and_duplicates(
        reports in prop::collection::vec(report(), 0..8),
        doubled in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        keys in prop::collection::vec(any::<u32>(), 16),
        observation in any_observation(),
    ) {
        let decide_after = |reports: &[Report]| {
            let mut session = active();
            for (fact, second) in reports {
                session.state.learn(fact, at(*second), at(401));
            }
            decide(&session, observation.as_ref(), at(401))
        };
        // The later of two departures in the same second is undefined, and so is a second
        // departure of the same agent without a reason, so exclude these cases.
        let departures = reports.iter().filter(|(fact, _)| matches!(fact, Fact::AgentLeft { .. }));
        let mut seconds: Vec<_> = departures.clone().map(|(_, second)| *second).collect();
        seconds.sort_unstable();
        prop_assume!(seconds.windows(2).all(|pair| pair[0] != pair[1]));
        let is_explained =
            |(fact, _): &Report| !matches!(fact, Fact::AgentLeft { reason: None, .. });
        prop_assume!(seconds.len() <= 1 || departures.clone().all(is_explained));

        let mut again = reports.clone();
        if !reports.is_empty() {
            again.extend(doubled.iter().map(|index| index.get(&reports).clone()));
        }
        let mut shuffled: Vec<_> = again.into_iter().zip(keys.into_iter().cycle()).collect();
        shuffled.sort_by_key(|(_, key)| *key);
        let shuffled: Vec<_> = shuffled.into_iter().map(|(report, _)| report).collect();
        prop_assert_eq!(decide_after(&reports), decide_after(&shuffled));
    }

    #[test]
    fn outcome_of_closed_session_never_changes(
        session in any_session(), observations in prop::collection::vec(any_observation(), 1..40),
    ) {
        let (mut session, mut now, mut ended) = (session, at(11), None);
        for observation in observations {
            let decision = decide(&session, observation.as_ref(), now);
            if let Some((status, reason, ended_at)) = ended {
                prop_assert_eq!(decision.state.status, status);
                prop_assert_eq!(decision.state.end_reason, reason);
                prop_assert_eq!(decision.state.ended_at, ended_at);
                prop_assert!(decision.events.is_empty());
                prop_assert!(decision.actions.iter().all(|action| *action == Action::DeleteRoom));
            } else if decision.state.is_over() {
                ended = Some((decision.state.status, decision.state.end_reason, decision.state.ended_at));
            }
            session.state = decision.state;
            now += seconds(13);
        }
    }

    #[test]
    fn next_check_is_set_until_room_of_closed_session_is_gone(
        session in any_session(), observations in prop::collection::vec(any_observation(), 1..40),
    ) {
        let (mut session, mut now) = (session, at(11));
        for observation in observations {
            session.state = decide(&session, observation.as_ref(), now).state;
            match session.state.next_check_at {
                Some(next) => prop_assert!(next > now, "a check that is due at once would repeat"),
                None => prop_assert!(session.state.is_over() && session.state.room_gone_at.is_some()),
            }
            now += seconds(13);
        }
    }

    #[test]
    fn at_most_one_dispatch_and_only_with_room_and_dispatch_list(
        session in any_session(), observations in prop::collection::vec(any_observation(), 1..40),
    ) {
        let (mut session, mut now) = (session, at(11));
        for observation in observations {
            let decision = decide(&session, observation.as_ref(), now);
            let dispatching = decision.actions.iter().filter(|action| action.dispatches_agent());
            prop_assert!(dispatching.count() <= 1);
            if decision.actions.iter().any(Action::dispatches_agent) {
                let recorded = decision.state.last_dispatch_at;
                prop_assert_eq!(recorded, Some(now), "the dispatch is recorded");
            }
            if decision.actions.contains(&Action::Dispatch) {
                let is_listed = |observation: &Observation| {
                    observation.room.is_some() && observation.dispatches.is_some()
                };
                prop_assert!(observation.as_ref().is_some_and(is_listed));
            }
            session.state = decision.state;
            now += seconds(3);
        }
    }

    #[test]
    fn every_session_ends_if_its_room_stays_missing(
        session in any_session(), first in any_observation(), after in 11_i64..500,
    ) {
        let first = first.unwrap_or_default();
        let state = decide(&session, Some(&first), at(after)).state;
        let session = decide_until_done(TrackedSession { state, ..session }, &no_room(), at(after + 1));
        prop_assert!(session.state.is_over());
        prop_assert!(session.state.ended_at.is_some() && session.state.end_reason.is_some());
    }
}
