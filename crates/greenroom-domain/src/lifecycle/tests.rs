//! The rules, one test a row, and what holds whatever happens.

use proptest::prelude::*;

use super::*;
use crate::{OnAgentHangup, ParticipantIdentity, RoomCreation};

const ROOM: &str = "RM_1";
const USER: &str = "ann";
const AGENT: &str = "agent-AJ_1";
const CLIENT_INITIATED: &str = "CLIENT_INITIATED";

/// So many seconds after the session was created.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn seconds(seconds: i64) -> TimeDelta {
    TimeDelta::seconds(seconds)
}

/// A session as a start leaves it: the room opened, the agent asked for.
fn started() -> Session {
    let state = State {
        status: SessionStatus::Pending,
        agent_status: AgentStatus::Dispatched,
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
        room_creation: RoomCreation::OnStart,
        agent: Some(agent),
        reconnect_window: seconds(60),
        max_duration: seconds(7200),
        reconcile_every: seconds(30),
    };
    Session {
        policy,
        participant_identity: ParticipantIdentity::try_from(USER.to_owned()).unwrap(),
        created_at: at(0),
        join_by: at(600),
        token_expiry: at(3600),
        state,
    }
}

/// One whose user is there since ten seconds, and its agent, too.
fn active() -> Session {
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

fn on_join(mut session: Session) -> Session {
    session.policy.room_creation = RoomCreation::OnJoin;
    session.state.agent_status = AgentStatus::Waiting;
    session.state.room_created_at = None;
    session.state.agent_wanted_since = None;
    session.state.last_dispatch_at = None;
    session
}

fn with_agent_terms(mut session: Session, change: impl FnOnce(&mut AgentPolicy)) -> Session {
    change(session.policy.agent.as_mut().unwrap());
    session
}

fn participant(identity: &str, kind: ParticipantKind) -> Participant {
    let sid = format!("PA_{identity}");
    Participant { identity: identity.to_owned(), sid, kind, is_active: true }
}

/// A look that shows the room with these in it.
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
    fn listing(mut self, dispatches: Vec<Dispatch>) -> Self {
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

/// How the session ended by this decision.
fn ending(decision: &Decision) -> (SessionStatus, Option<EndReason>) {
    assert_eq!(decision.actions, [Action::DeleteRoom], "its room goes");
    assert!(decision.state.ended_at.is_some() && decision.state.next_check_at.is_some());
    (decision.state.status, decision.state.end_reason)
}

fn assert_unchanged(session: &Session, decision: &Decision) {
    let next_check_at = decision.state.next_check_at;
    assert_eq!(decision.state, State { next_check_at, ..session.state.clone() });
    assert_eq!((&decision.events[..], &decision.actions[..]), (&[][..], &[][..]));
}

mod rooms {
    use super::*;

    #[test]
    fn on_join_has_no_room_before_its_user() {
        let session = on_join(started());
        let decision = decide(&session, Some(&no_room()), at(30));
        assert_unchanged(&session, &decision);
        assert_eq!(decision.state.next_check_at, Some(at(60)), "the next look");
    }

    #[test]
    fn a_room_that_was_opened_and_not_written_down_is() {
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
    fn an_agent_asked_for_with_a_room_that_only_a_webhook_told_of_is_written_down() {
        let mut session = started();
        session.state.agent_status = AgentStatus::Waiting;
        session.state.agent_wanted_since = None;
        session.state.last_dispatch_at = None;
        let look = room(&[]).listing(vec![dispatch("AD_1", 1, &[])]);
        let decision = decide(&session, Some(&look), at(1));
        assert_eq!(decision.actions, [], "what was asked for is not taken back");
        assert_eq!(decision.state.agent_wanted_since, Some(at(1)));
        assert_eq!(events(&decision), [TimelineEvent::AgentDispatched]);
    }

    #[test]
    fn a_start_that_opens_no_room_fails_after_a_minute() {
        let mut session = started();
        session.state.room_created_at = None;
        for look in [Some(&no_room()), None] {
            let early = decide(&session, look, at(59));
            assert_eq!(early.state.status, SessionStatus::Pending);
            assert_eq!(early.state.next_check_at, Some(at(60)));
            let late = decide(&session, look, at(60));
            assert_eq!(
                ending(&late),
                (SessionStatus::Failed, Some(EndReason::LiveKitError)),
                "{look:?}"
            );
        }
    }

    #[test]
    fn a_room_lost_before_anybody_came_is_opened_again_with_its_agent() {
        let session = started();
        let decision = decide(&session, Some(&no_room()), at(100));
        assert_eq!(decision.actions, [Action::OpenRoom]);
        assert_eq!(decision.state.agent_wanted_since, Some(at(100)), "the clock begins anew");
        assert_eq!(decision.state.last_dispatch_at, Some(at(100)));
        assert_eq!(decision.state.status, SessionStatus::Pending);
        assert_eq!(events(&decision), [TimelineEvent::AgentDispatched]);
    }

    #[test]
    fn a_room_that_does_not_open_is_asked_for_until_it_is_there_and_told_of_once() {
        let missed = decide(&started(), Some(&no_room()), at(100));
        let session = Session { state: missed.state, ..started() };
        let again = decide(&session, Some(&no_room()), at(102));
        assert_eq!(again.actions, [Action::OpenRoom]);
        assert_eq!(again.state.agent_wanted_since, Some(at(102)), "asked for with each");
        assert_eq!(events(&again), []);
        let session = Session { state: again.state, ..started() };
        let there = decide(&session, Some(&room(&[]).listing(vec![])), at(104));
        assert_eq!(there.state.room_missing_since, None);
    }

    #[test]
    fn a_room_that_is_opened_again_brings_no_agent_back_that_was_given_up() {
        let mut session = with_agent_terms(started(), |agent| agent.required = false);
        session.state.agent_status = AgentStatus::Unavailable;
        let decision = decide(&session, Some(&no_room()), at(100));
        assert_eq!(decision.actions, [Action::OpenRoom]);
        assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
        assert_eq!(events(&decision), []);
    }

    #[test]
    fn a_room_told_to_be_finished_before_anybody_came_is_opened_again() {
        let mut session = started();
        session.state.room_finished_at = Some(at(50));
        assert_eq!(decide(&session, Some(&no_room()), at(51)).actions, [Action::OpenRoom]);
    }

    #[test]
    fn an_active_room_that_is_gone_has_the_reconnect_window_to_come_again() {
        let session = active();
        let gone = decide(&session, Some(&no_room()), at(100));
        assert_eq!(gone.state.room_missing_since, Some(at(100)));
        assert_eq!((gone.state.status, gone.actions.len()), (SessionStatus::Active, 0));
        assert!(gone.state.is_user_present(), "a room that is gone tells nothing of its users");
        let missing = Session { state: gone.state, ..session };

        let back = decide(&missing, Some(&room(&[USER, AGENT])), at(159));
        assert_eq!(back.state.room_missing_since, None);
        let over = decide(&missing, Some(&no_room()), at(160));
        assert_eq!(ending(&over), (SessionStatus::Ended, Some(EndReason::RoomClosed)));
    }

    #[test]
    fn a_finished_room_ends_the_session_by_who_left_when() {
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
    fn a_room_that_finished_and_is_there_again_goes_on() {
        let mut session = active();
        session.state.room_finished_at = Some(at(200));
        let decision = decide(&session, Some(&room(&[USER, AGENT])), at(201));
        assert_unchanged(&session, &decision);
        // And one that finished before the user came says nothing of this one.
        session.state.room_finished_at = Some(at(5));
        let decision = decide(&session, Some(&no_room()), at(201));
        assert_eq!(decision.state.status, SessionStatus::Active);
    }

    #[test]
    fn without_webhooks_a_user_who_left_ends_it_all_the_same() {
        let session = active();
        let left = decide(&session, Some(&room(&[AGENT])), at(100));
        let session = Session { state: left.state, ..session };
        let over = decide(&session, Some(&no_room()), at(165));
        assert_eq!(ending(&over), (SessionStatus::Ended, Some(EndReason::UserLeft)));
        // One that went before the user's time was up may come again.
        let early = decide(&session, Some(&no_room()), at(157));
        assert_eq!(early.state.status, SessionStatus::Active);
    }
}

mod users {
    use super::*;

    #[test]
    fn one_who_came_and_went_between_two_looks_has_joined() {
        let mut session = started();
        session.state.user_joined_at = Some(at(20));
        session.state.user_left_at = Some(at(21));
        let decision = decide(&session, Some(&room(&[AGENT])), at(22));
        assert_eq!(decision.state.status, SessionStatus::Active);
        assert_eq!(decision.state.started_at, Some(at(20)), "when they joined");
        assert_eq!(decision.state.end_by, Some(at(20 + 7200)));
        // And though the room has closed behind them meanwhile.
        session.state.room_finished_at = Some(at(81));
        let decision = decide(&session, Some(&no_room()), at(82));
        assert_eq!(ending(&decision), (SessionStatus::Ended, Some(EndReason::UserLeft)));
    }

    #[test]
    fn joining_makes_it_active() {
        let session = started();
        let decision = decide(&session, Some(&room(&[USER])), at(20));
        assert_eq!(decision.state.status, SessionStatus::Active);
        assert_eq!(decision.state.started_at, Some(at(20)));
        assert_eq!(decision.state.end_by, Some(at(20 + 7200)));
        let joined = Event { event: TimelineEvent::UserJoined, sid: Some("PA_ann".to_owned()) };
        assert_eq!(decision.events, [joined]);
    }

    #[test]
    fn somebody_else_is_not_the_user() {
        let session = started();
        let mut look = room(&["recorder"]);
        look.participants.push(participant("ben", ParticipantKind::User));
        // An agent of the user's name is an agent.
        look.participants.push(participant(USER, ParticipantKind::Other));
        assert_unchanged(&session, &decide(&session, Some(&look), at(3)));
    }

    #[test]
    fn joining_on_join_is_when_the_agent_is_asked_for() {
        let session = on_join(started());
        let decision = decide(&session, Some(&room(&[USER])), at(20));
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
        assert_eq!(decision.state.agent_wanted_since, Some(at(20)));
        assert_eq!(decision.actions, [], "the token has asked for it");
    }

    #[test]
    fn what_the_token_asks_for_is_left_alone_before_its_user_is_shown() {
        // The room is told of as soon as it is there, its user only once connected.
        let session = on_join(started());
        let look = room(&[]).listing(vec![dispatch("AD_1", 1, &[])]);
        let decision = decide(&session, Some(&look), at(20));
        assert_eq!(decision.actions, []);
        assert_eq!(decision.state.agent_status, AgentStatus::Waiting);
    }

    #[test]
    fn leaving_and_coming_again_are_facts() {
        let session = active();
        let left = decide(&session, Some(&room(&[AGENT])), at(50));
        assert_eq!(left.state.user_left_at, Some(at(50)));
        assert_eq!(events(&left), [TimelineEvent::UserLeft]);
        let session = Session { state: left.state, ..session };
        let back = decide(&session, Some(&room(&[USER, AGENT])), at(50));
        assert!(back.state.is_user_present(), "of two moments at once the look decides");
        assert_eq!(back.state.status, SessionStatus::Active);
    }

    #[test]
    fn a_leaving_told_late_does_not_undo_what_is_seen() {
        let mut session = active();
        session.state.user_left_at = Some(at(60));
        let decision = decide(&session, Some(&room(&[USER, AGENT])), at(59));
        assert!(decision.state.is_user_present());
    }

    #[test]
    fn nobody_by_join_by_and_it_expires() {
        let mut session = started();
        session.policy.agent = None;
        session.state.agent_status = AgentStatus::None;
        let early = decide(&session, Some(&room(&[])), at(599));
        assert_ne!(early.state.status, SessionStatus::Expired);
        let late = decide(&session, Some(&room(&[])), at(600));
        assert_eq!(ending(&late), (SessionStatus::Expired, Some(EndReason::JoinWindow)));
        let just = decide(&session, Some(&room(&[USER])), at(600));
        assert_eq!(just.state.status, SessionStatus::Active, "who is there has come in time");
        let unseen = decide(&session, None, at(700));
        assert_eq!(unseen.state.status, SessionStatus::Pending, "nobody has looked");
        assert_eq!(unseen.state.next_check_at, Some(at(702)), "and somebody will, soon");
    }

    #[test]
    fn the_longest_session_is_announced_once_and_ends() {
        let session = active();
        let end = 10 + 7200;
        let look = room(&[USER, AGENT]);
        assert_eq!(decide(&session, Some(&look), at(end - 31)).actions, []);
        let told = decide(&session, Some(&look), at(end - 30));
        assert_eq!(told.actions, [Action::AnnounceEnd]);
        let session = Session { state: told.state, ..session };
        assert_eq!(decide(&session, Some(&look), at(end - 29)).actions, []);
        for look in [Some(&look), None] {
            let over = decide(&session, look, at(end));
            assert_eq!(ending(&over), (SessionStatus::Ended, Some(EndReason::MaxDuration)));
        }
    }
}

mod agents {
    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "a look is made for one decision")]
    fn wanted_at(session: &Session, look: Observation, now: i64) -> Decision {
        decide(session, Some(&look), at(now))
    }

    #[test]
    fn one_that_is_there_and_connected_is_ready() {
        let session = started();
        let decision = wanted_at(&session, room(&[AGENT]), 3);
        assert_eq!(decision.state.agent_status, AgentStatus::Ready);
        assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT));
        assert_eq!(events(&decision), [TimelineEvent::AgentJoined]);
        let mut joining = room(&[AGENT]);
        joining.participants[0].is_active = false;
        let decision = wanted_at(&session, joining, 3);
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched, "it is not there yet");
    }

    #[test]
    fn a_template_without_agent_wants_none() {
        let mut session = started();
        session.policy.agent = None;
        session.state.agent_status = AgentStatus::None;
        let decision = wanted_at(&session, room(&[AGENT]).listing(vec![]), 100);
        assert_unchanged(&session, &decision);
    }

    #[test]
    fn a_job_that_was_taken_is_left_alone_however_slow() {
        let session = started();
        for jobs in [&[(true, "")][..], &[(true, AGENT)], &[(false, ""), (true, "")]] {
            let look = room(&[]).listing(vec![dispatch("AD_1", 1, jobs)]);
            let decision = wanted_at(&session, look, 29);
            assert_unchanged(&session, &decision);
            assert_eq!(decision.state.next_check_at, Some(at(30)), "its deadline");
        }
    }

    #[test]
    fn one_that_nobody_took_is_asked_for_again_after_six_seconds() {
        let session = started();
        for listed in
            [vec![], vec![dispatch("AD_1", 1, &[])], vec![dispatch("AD_1", 1, &[(false, "")])]]
        {
            let deleted: Vec<_> = listed.iter().map(|one| delete(&one.id)).collect();
            let look = room(&[]).listing(listed);
            let early = wanted_at(&session, look.clone(), 5);
            assert_unchanged(&session, &early);
            assert_eq!(early.state.next_check_at, Some(at(6)), "and no later");
            let decision = wanted_at(&session, look, 6);
            assert_eq!(decision.actions, [deleted, vec![Action::Dispatch]].concat());
            assert_eq!(decision.state.last_dispatch_at, Some(at(6)));
            assert_eq!(decision.state.agent_wanted_since, Some(at(0)), "the deadline stays");
            assert_eq!(events(&decision), [TimelineEvent::AgentDispatched]);
        }
    }

    #[test]
    fn nothing_is_asked_for_by_a_look_that_did_not_list() {
        let session = started();
        assert_unchanged(&session, &wanted_at(&session, room(&[]), 20));
        assert_unchanged(&session, &decide(&session, None, at(40)));
    }

    #[test]
    fn a_required_one_that_does_not_come_fails_the_session() {
        let session = started();
        let decision = wanted_at(&session, room(&[]).listing(vec![]), 30);
        assert_eq!(ending(&decision), (SessionStatus::Failed, Some(EndReason::AgentUnavailable)));
        assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
        let told = events(&decision);
        assert_eq!(told, [TimelineEvent::AgentUnavailable, TimelineEvent::Failed]);
    }

    #[test]
    fn one_that_is_not_required_is_given_up_for_good() {
        let session = with_agent_terms(started(), |agent| agent.required = false);
        let late = room(&[]).listing(vec![dispatch("AD_1", 1, &[(true, "")])]);
        let decision = wanted_at(&session, late, 30);
        assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
        assert_eq!(decision.state.status, SessionStatus::Pending);
        assert_eq!(decision.actions, [delete("AD_1")]);
        let session = Session { state: decision.state, ..session };
        assert_unchanged(&session, &wanted_at(&session, room(&[AGENT]).listing(vec![]), 40));
    }

    #[test]
    fn one_that_was_given_up_is_taken_back_until_that_is_seen() {
        let mut session = with_agent_terms(active(), |agent| agent.required = false);
        session.state.agent_status = AgentStatus::Unavailable;
        let taken = vec![dispatch("AD_1", 1, &[(true, "")])];
        let decision = wanted_at(&session, room(&[USER]).listing(taken), 60);
        assert_eq!(decision.actions, [delete("AD_1")], "deleting it had failed");
        assert_eq!(decision.state.agent_status, AgentStatus::Unavailable);
        let joined = vec![dispatch("AD_1", 1, &[(true, AGENT)])];
        let decision = wanted_at(&session, room(&[USER, AGENT]).listing(joined), 60);
        assert_eq!(decision.actions, [delete("AD_1")]);
    }

    #[test]
    fn of_two_that_were_taken_one_is_kept() {
        let session = started();
        let two = |older: &str, younger: &str| {
            vec![dispatch("AD_y", 2, &[(true, younger)]), dispatch("AD_o", 1, &[(true, older)])]
        };
        let booting = wanted_at(&session, room(&[]).listing(two("", "")), 8);
        assert_eq!(booting.actions, [delete("AD_y")], "the older");
        let one_there = room(&["agent-AJ_2"]).listing(two("agent-AJ_1", "agent-AJ_2"));
        let decision = wanted_at(&session, one_there, 8);
        assert_eq!(decision.actions, [delete("AD_o")], "the one whose agent is there");
        let both = room(&["agent-AJ_1", "agent-AJ_2"]).listing(two("agent-AJ_1", "agent-AJ_2"));
        let decision = wanted_at(&session, both, 8);
        assert_eq!(decision.actions.len(), 1, "{:?}", decision.actions);
    }

    #[test]
    fn of_two_agents_the_one_that_can_be_taken_back_goes() {
        // A room that LiveKit opened again, its node or itself having died, asks for its agent again,
        // and the one that was in it comes back, too.
        let back = room(&[USER, AGENT, "agent-AJ_2"]);
        let look = back.listing(vec![dispatch("AD_2", 2, &[(true, "agent-AJ_2")])]);
        let session = active();
        let decision = wanted_at(&session, look.clone(), 100);
        assert_eq!(decision.actions, [delete("AD_2")]);
        assert_eq!(decision.state, State { next_check_at: Some(at(102)), ..session.state });
        // The other way round, when the new one was there first.
        let mut session = active();
        session.state.agent_identity = Some("agent-AJ_2".to_owned());
        let decision = wanted_at(&session, look, 100);
        assert_eq!(decision.actions, [delete("AD_2")]);
        assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT), "the one that stays");
    }

    #[test]
    fn what_brought_a_second_agent_is_taken_back_before_its_job_is_shown() {
        let crowded = room(&[USER, AGENT, "agent-AJ_2"]);
        let look = crowded.listing(vec![dispatch("AD_2", 2, &[])]);
        let mut session = active();
        session.state.last_dispatch_at = Some(at(94));
        let decision = wanted_at(&session, look.clone(), 100);
        assert_eq!(decision.actions, [delete("AD_2")]);
        assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT));
        // One that was asked for just now may be what brought either of them.
        session.state.last_dispatch_at = Some(at(95));
        assert_eq!(wanted_at(&session, look, 100).actions, []);
    }

    #[test]
    fn somebody_elses_agent_is_not_the_one_that_is_wanted() {
        let others =
            Dispatch { owner: DispatchOwner::Other, ..dispatch("AD_2", 2, &[(true, AGENT)]) };
        let look = room(&[AGENT]).listing(vec![dispatch("AD_1", 1, &[]), others]);
        let decision = wanted_at(&started(), look, 4);
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
        assert_eq!(decision.actions, [], "and it is left alone");
    }

    #[test]
    fn one_that_livekit_asked_for_of_itself_is_taken_back() {
        let unnamed = Dispatch { owner: DispatchOwner::Unnamed, ..dispatch("AD_2", 2, &[]) };
        let look =
            room(&[USER, AGENT]).listing(vec![dispatch("AD_1", 1, &[(true, AGENT)]), unnamed]);
        let decision = wanted_at(&active(), look, 100);
        assert_eq!(decision.actions, [delete("AD_2")]);
        assert_eq!(decision.state.agent_status, AgentStatus::Ready);
    }

    #[test]
    fn an_agent_that_may_be_somebody_elses_takes_the_place_of_none() {
        // Somebody has asked for a second one under another name, and it is there before its job.
        for owner in [DispatchOwner::Other, DispatchOwner::Unnamed] {
            let others = Dispatch { owner, ..dispatch("AD_2", 2, &[]) };
            let listed = vec![dispatch("AD_1", 1, &[(true, AGENT)]), others];
            for here in [[USER, AGENT, "agent-AJ_2"], [USER, "agent-AJ_2", AGENT]] {
                for session in [active(), started()] {
                    let decision = wanted_at(&session, room(&here).listing(listed.clone()), 12);
                    assert!(!decision.actions.contains(&delete("AD_1")), "{owner:?}");
                    assert_eq!(decision.state.agent_identity.as_deref(), Some(AGENT));
                }
            }
            let alone = room(&["agent-AJ_2"]).listing(listed);
            let decision = wanted_at(&started(), alone, 4);
            assert_eq!(decision.state.agent_status, AgentStatus::Dispatched, "{owner:?}");
        }
    }

    #[test]
    fn somebody_elses_agent_that_hangs_up_ends_nothing() {
        let mut session = with_agent_terms(started(), |agent| agent.on_hangup = OnAgentHangup::End);
        session.state.agent_left_at = Some(at(4));
        session.state.agent_left_identity = Some("agent-AJ_2".to_owned());
        session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
        let others = Dispatch {
            owner: DispatchOwner::Other,
            ..dispatch("AD_2", 2, &[(true, "agent-AJ_2")])
        };
        let ours = dispatch("AD_1", 1, &[(true, "")]);
        let decision = wanted_at(&session, room(&[USER]).listing(vec![ours, others]), 5);
        assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
        assert_eq!(decision.state.status, SessionStatus::Active);
        assert_eq!(decision.actions, []);
    }

    #[test]
    fn an_agent_whose_job_is_not_shown_yet_keeps_its_dispatch() {
        let session = active();
        for jobs in [&[][..], &[(true, "")], &[(true, AGENT)], &[(true, "agent-AJ_9")]] {
            let look = room(&[USER, AGENT]).listing(vec![dispatch("AD_1", 1, jobs)]);
            assert_unchanged(&session, &wanted_at(&session, look, 100));
        }
    }

    #[test]
    fn an_agent_that_was_only_missed_and_is_there_again_is_there() {
        let session = active();
        let missed = wanted_at(&session, room(&[USER]).listing(vec![]), 100);
        let session = Session { state: missed.state, ..session };
        let back = wanted_at(&session, room(&[USER, AGENT]).listing(vec![]), 101);
        assert_eq!(back.state.agent_status, AgentStatus::Ready);
        assert_eq!(back.state.agent_left_at, None, "it has not left");
        let again = Session { state: back.state, ..session };
        let look = room(&[USER, AGENT]).listing(vec![]);
        assert_unchanged(&again, &wanted_at(&again, look, 140));
    }

    /// The agent is gone: what the first look shows, and what two seconds later.
    fn gone(mut session: Session, reason: Option<&str>) -> (Session, Decision) {
        session.state.agent_left_reason = None;
        let first = wanted_at(&session, room(&[USER]), 100);
        assert_eq!(first.state.agent_left_at, Some(at(100)));
        assert_eq!(first.state.next_check_at, Some(at(102)));
        assert_eq!(first.state.agent_status, AgentStatus::Ready, "its webhook may be under way");
        let mut session = Session { state: first.state, ..session };
        session.state.agent_left_reason = reason.map(str::to_owned);
        let look = room(&[USER]).listing(vec![dispatch("AD_1", 1, &[(true, AGENT)])]);
        let second = wanted_at(&session, look, 102);
        (session, second)
    }

    #[test]
    fn one_that_died_is_replaced_with_a_deadline_of_its_own() {
        for reason in [None, Some("CONNECTION_TIMEOUT"), Some("PARTICIPANT_REMOVED")] {
            let (_, decision) = gone(active(), reason);
            assert_eq!(decision.state.agent_status, AgentStatus::Dispatched, "{reason:?}");
            assert_eq!(decision.state.agent_wanted_since, Some(at(102)));
            assert_eq!(
                decision.actions,
                [delete("AD_1"), Action::Dispatch],
                "its job runs for ever"
            );
        }
    }

    #[test]
    fn one_that_hung_up_is_left_and_the_template_says_what_then() {
        let (_, kept) = gone(active(), Some(CLIENT_INITIATED));
        assert_eq!(kept.state.agent_status, AgentStatus::Left);
        assert_eq!(kept.state.status, SessionStatus::Active);
        let ends = with_agent_terms(active(), |agent| agent.on_hangup = OnAgentHangup::End);
        let (_, ended) = gone(ends, Some(CLIENT_INITIATED));
        assert_eq!(ending(&ended), (SessionStatus::Ended, Some(EndReason::AgentLeft)));
    }

    #[test]
    fn one_that_hangs_up_on_nobody_ends_nothing() {
        let mut session = with_agent_terms(active(), |agent| agent.on_hangup = OnAgentHangup::End);
        session.state.user_left_at = Some(at(50));
        session.state.agent_left_at = Some(at(51));
        session.state.agent_left_identity = Some(AGENT.to_owned());
        session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
        let decision = wanted_at(&session, room(&[]), 52);
        assert_eq!(decision.state.agent_status, AgentStatus::Left);
        assert_eq!(decision.state.status, SessionStatus::Active);
    }

    #[test]
    fn one_that_came_and_hung_up_between_two_looks_is_left() {
        let mut session = started();
        session.state.agent_left_at = Some(at(2));
        session.state.agent_left_identity = Some(AGENT.to_owned());
        session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
        let decision = wanted_at(&session, room(&[]).listing(vec![]), 4);
        assert_eq!(decision.state.agent_status, AgentStatus::Left);
        assert_eq!(decision.actions, []);
    }

    #[test]
    fn one_that_left_behind_its_user_comes_back_with_them() {
        // A reload: the user is out for a moment, and the agent closes behind them.
        for end in [OnAgentHangup::Keep, OnAgentHangup::End] {
            let mut session = with_agent_terms(active(), |agent| agent.on_hangup = end);
            session.state.user_left_at = Some(at(100));
            session.state.user_joined_at = Some(at(101));
            session.state.agent_left_at = Some(at(102));
            session.state.agent_left_identity = Some(AGENT.to_owned());
            session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
            let decision = wanted_at(&session, room(&[USER]).listing(vec![]), 102);
            assert_eq!(decision.state.agent_status, AgentStatus::Dispatched);
            assert_eq!(decision.actions, [Action::Dispatch]);
        }
    }

    #[test]
    fn one_that_left_in_the_same_moment_as_its_user_left_behind_them() {
        let mut session = with_agent_terms(active(), |agent| agent.on_hangup = OnAgentHangup::End);
        session.state.user_left_at = Some(at(100));
        session.state.agent_left_at = Some(at(100));
        session.state.agent_left_identity = Some(AGENT.to_owned());
        session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
        let decision = wanted_at(&session, room(&[]), 101);
        assert_eq!(decision.state.agent_status, AgentStatus::Left);
        assert_eq!(decision.state.status, SessionStatus::Active, "the user has their window");
    }

    #[test]
    fn where_the_one_that_stays_is_listed_no_old_dispatch_is_left() {
        let mut session = active();
        session.state.agent_identity = Some("agent-AJ_2".to_owned());
        session.state.agent_left_identity = Some(AGENT.to_owned());
        session.state.agent_left_reason = Some("CONNECTION_TIMEOUT".to_owned());
        let look = room(&[USER, "agent-AJ_2"]).listing(vec![
            dispatch("AD_1", 1, &[(true, AGENT)]),
            dispatch("AD_2", 2, &[(true, "agent-AJ_2")]),
        ]);
        assert_eq!(wanted_at(&session, look, 100).actions, [delete("AD_1")]);
    }

    #[test]
    fn one_whose_leaving_was_told_is_not_there_though_it_is_shown() {
        let mut session = active();
        session.state.agent_left_at = Some(at(99));
        session.state.agent_left_identity = Some(AGENT.to_owned());
        session.state.agent_left_reason = Some(CLIENT_INITIATED.to_owned());
        let decision = wanted_at(&session, room(&[USER, AGENT]), 100);
        assert_eq!(decision.state.agent_status, AgentStatus::Left);
    }

    #[test]
    fn one_that_was_lost_waits_for_a_user_who_is_out() {
        let mut session = active();
        session.state.user_left_at = Some(at(90));
        let first = wanted_at(&session, room(&[]), 100);
        let session = Session { state: first.state, ..session };
        let look = room(&[]).listing(vec![dispatch("AD_1", 1, &[(true, AGENT)])]);
        let second = wanted_at(&session, look, 102);
        assert_eq!(second.state.agent_status, AgentStatus::Waiting);
        assert_eq!(second.actions, [delete("AD_1")]);
        let session = Session { state: second.state, ..session };
        let back = wanted_at(&session, room(&[USER]).listing(vec![]), 110);
        assert_eq!(back.state.agent_status, AgentStatus::Dispatched);
        assert_eq!(back.actions, [Action::Dispatch]);
    }

    #[test]
    fn a_user_who_comes_again_brings_one_back_that_had_hung_up() {
        let (session, left) = gone(active(), Some(CLIENT_INITIATED));
        let session = Session { state: left.state, ..session };
        assert_unchanged(&session, &wanted_at(&session, room(&[USER]), 110));
        let out = wanted_at(&session, room(&[]), 120);
        let session = Session { state: out.state, ..session };
        let old = vec![dispatch("AD_1", 1, &[(true, AGENT)])];
        let back = wanted_at(&session, room(&[USER]).listing(old), 130);
        assert_eq!(back.state.agent_status, AgentStatus::Dispatched);
        assert_eq!(back.state.agent_wanted_since, Some(at(130)));
        assert_eq!(back.actions, [delete("AD_1"), Action::Dispatch]);
    }

    #[test]
    fn one_that_died_before_anybody_came_is_replaced() {
        let mut session = started();
        session.state.agent_status = AgentStatus::Ready;
        session.state.agent_identity = Some(AGENT.to_owned());
        let first = wanted_at(&session, room(&[]), 100);
        let session = Session { state: first.state, ..session };
        let second = wanted_at(&session, room(&[]).listing(vec![]), 102);
        assert_eq!(second.actions, [Action::Dispatch]);
    }
}

mod over {
    use super::*;

    fn over() -> Session {
        let mut session = active();
        session.state.status = SessionStatus::Ended;
        session.state.end_reason = Some(EndReason::Requested);
        session.state.ended_at = Some(at(100));
        session
    }

    #[test]
    fn the_room_is_deleted_until_it_is_seen_to_be_gone() {
        let session = over();
        for now in [100, 102, 500] {
            let decision = decide(&session, Some(&room(&[USER])), at(now));
            assert_eq!(decision.actions, [Action::DeleteRoom]);
            assert_eq!(decision.state.next_check_at, Some(at(now + 2)));
        }
        let failed = decide(&session, None, at(100));
        assert_eq!((failed.actions.len(), failed.state.next_check_at), (0, Some(at(102))));
    }

    #[test]
    fn once_gone_it_is_looked_at_when_no_token_is_left() {
        for (token_expiry, last) in [(at(3600), at(3660)), (at(200), at(110 + 660))] {
            let session = Session { token_expiry, ..over() };
            let gone = decide(&session, Some(&no_room()), at(110));
            assert_eq!(gone.state.room_gone_at, Some(at(110)));
            assert_eq!(gone.state.next_check_at, Some(at(125)), "a job that was under way");
            let session = Session { state: gone.state, ..session };
            let still_gone = decide(&session, Some(&no_room()), at(125));
            assert_eq!(still_gone.state.next_check_at, Some(last));
            let session = Session { state: still_gone.state, ..session };
            let done = decide(&session, Some(&no_room()), last);
            assert_eq!(done.state.next_check_at, None, "nothing is left to see");
            let again = decide(&session, Some(&room(&[USER])), last);
            assert_eq!(
                (again.actions.len(), again.state.room_gone_at),
                (1, None),
                "a token brought it back"
            );
        }
    }
}

/// Something that becomes known of a session.
#[derive(Debug, Clone)]
enum Fact {
    RoomFinished(i64),
    UserJoined(i64),
    UserLeft(i64),
    AgentLeft(i64, Option<&'static str>),
}

/// As it is written down: each the latest of its kind.
fn learn(state: &mut State, fact: &Fact) {
    match fact {
        Fact::RoomFinished(s) => state.room_finished_at = state.room_finished_at.max(Some(at(*s))),
        Fact::UserJoined(s) => state.user_joined_at = state.user_joined_at.max(Some(at(*s))),
        Fact::UserLeft(s) => state.user_left_at = state.user_left_at.max(Some(at(*s))),
        Fact::AgentLeft(s, reason) => {
            if state.agent_left_at < Some(at(*s)) {
                state.agent_left_at = Some(at(*s));
                state.agent_left_reason = reason.map(str::to_owned);
                state.agent_left_identity = Some(AGENT.to_owned());
            }
        }
    }
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        (11_i64..400).prop_map(Fact::RoomFinished),
        (11_i64..400).prop_map(Fact::UserJoined),
        (11_i64..400).prop_map(Fact::UserLeft),
        (
            11_i64..400,
            prop_oneof![Just(None), Just(Some(CLIENT_INITIATED)), Just(Some("CONNECTION_TIMEOUT"))]
        )
            .prop_map(|(at, reason)| Fact::AgentLeft(at, reason)),
    ]
}

fn look() -> impl Strategy<Value = Option<Observation>> {
    let job = (any::<bool>(), prop_oneof![Just(""), Just(AGENT), Just("agent-AJ_2")]);
    let owner = prop_oneof![8 => Just(DispatchOwner::Session), 1 => Just(DispatchOwner::Unnamed), 1 => Just(DispatchOwner::Other)];
    let dispatches = prop::collection::vec((owner, prop::collection::vec(job, 0..3)), 0..3);
    let here = prop::sample::subsequence(vec![USER, AGENT, "agent-AJ_2", "recorder"], 0..=4);
    let some =
        (any::<bool>(), here, prop::option::of(dispatches)).prop_map(|(there, here, listed)| {
            let mut look = if there { room(&here) } else { no_room() };
            look.dispatches = listed.map(|listed| {
                let numbered = listed.into_iter().zip(0_i64..);
                let one = |((owner, jobs), n)| {
                    let jobs: Vec<(bool, &str)> = jobs;
                    Dispatch { owner, ..dispatch(&format!("AD_{n}"), n, &jobs) }
                };
                numbered.map(one).collect()
            });
            look
        });
    prop::option::weighted(0.9, some)
}

fn any_session() -> impl Strategy<Value = Session> {
    let required = any::<bool>();
    let end = any::<bool>();
    (prop_oneof![Just(started()), Just(active()), Just(on_join(started()))], required, end)
        .prop_map(|(session, required, end)| {
            with_agent_terms(session, |agent| {
                agent.required = required;
                agent.on_hangup = if end { OnAgentHangup::End } else { OnAgentHangup::Keep };
            })
        })
}

/// Looks that go on until nothing is left to see.
fn to_the_end(mut session: Session, look: &Observation, mut now: DateTime<Utc>) -> Session {
    for _ in 0..10_000 {
        session.state = decide(&session, Some(look), now).state;
        match session.state.next_check_at {
            Some(next) => now = now.max(next),
            None => return session,
        }
    }
    panic!("it never comes to an end: {session:#?}");
}

proptest! {
    #[test]
    fn any_order_and_any_number_of_the_same_facts_end_the_same(
        facts in prop::collection::vec(fact(), 0..8),
        doubled in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        keys in prop::collection::vec(any::<u32>(), 16),
        look in look(),
    ) {
        let told = |facts: &[Fact]| {
            let mut session = active();
            for fact in facts {
                learn(&mut session.state, fact);
            }
            decide(&session, look.as_ref(), at(401))
        };
        // Of two leavings in the same second nobody can tell the later.
        let mut seconds: Vec<_> = facts.iter().filter_map(|fact| match fact {
            Fact::AgentLeft(at, _) => Some(*at),
            _ => None,
        }).collect();
        seconds.sort_unstable();
        prop_assume!(seconds.windows(2).all(|pair| pair[0] != pair[1]));

        let mut again = facts.clone();
        if !facts.is_empty() {
            again.extend(doubled.iter().map(|index| index.get(&facts).clone()));
        }
        let mut shuffled: Vec<_> = again.into_iter().zip(keys.into_iter().cycle()).collect();
        shuffled.sort_by_key(|(_, key)| *key);
        let shuffled: Vec<_> = shuffled.into_iter().map(|(fact, _)| fact).collect();
        prop_assert_eq!(told(&facts), told(&shuffled));
    }

    #[test]
    fn what_is_over_stays_as_it_ended(session in any_session(), looks in prop::collection::vec(look(), 1..40)) {
        let (mut session, mut now, mut ended) = (session, at(11), None);
        for look in looks {
            let decision = decide(&session, look.as_ref(), now);
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
    fn something_is_due_while_something_is_left_to_see(session in any_session(), looks in prop::collection::vec(look(), 1..40)) {
        let (mut session, mut now) = (session, at(11));
        for look in looks {
            session.state = decide(&session, look.as_ref(), now).state;
            match session.state.next_check_at {
                Some(next) => prop_assert!(next > now, "it would be looked at again and again"),
                None => prop_assert!(session.state.is_over() && session.state.room_gone_at.is_some()),
            }
            now += seconds(13);
        }
    }

    #[test]
    fn at_most_one_agent_is_asked_for_and_only_when_none_is_on_its_way(
        session in any_session(), looks in prop::collection::vec(look(), 1..40),
    ) {
        let (mut session, mut now) = (session, at(11));
        for look in looks {
            let decision = decide(&session, look.as_ref(), now);
            let asked = decision.actions.iter().filter(|action| **action == Action::Dispatch).count();
            prop_assert!(asked <= 1);
            if asked == 1 {
                prop_assert_eq!(decision.state.last_dispatch_at, Some(now), "it is written before it is done");
                prop_assert!(!decision.actions.contains(&Action::OpenRoom), "which asks for one, too");
                prop_assert!(look.as_ref().is_some_and(|look| look.room.is_some() && look.dispatches.is_some()));
            }
            session.state = decision.state;
            now += seconds(3);
        }
    }

    #[test]
    fn every_session_comes_to_an_end(session in any_session(), here in look(), after in 11_i64..500) {
        let look = here.unwrap_or_default();
        let first = decide(&session, Some(&look), at(after)).state;
        let session = to_the_end(Session { state: first, ..session }, &no_room(), at(after + 1));
        prop_assert!(session.state.is_over());
        prop_assert!(session.state.ended_at.is_some() && session.state.end_reason.is_some());
    }
}
