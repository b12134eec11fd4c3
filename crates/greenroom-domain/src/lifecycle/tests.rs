//! Tests of the lifecycle decision: one per rule, and properties that hold for all observations.
//! Here are the sessions and observations that they share.

mod agent;
mod closed;
mod properties;
mod rejoin;
mod room;
mod schedule;
mod user;

use super::*;
use crate::{AgentStatus, OnAgentHangup, ParticipantIdentity, RoomCreation, SessionId};

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
    assert!(decision.state.ended_at.is_some() && decision.check_at.is_some());
    (decision.state.status, decision.state.end_reason)
}

fn assert_unchanged(session: &TrackedSession, decision: &Decision) {
    let next_check_at = decision.state.next_check_at;
    assert_eq!(decision.state, State { next_check_at, ..session.state.clone() });
    assert_eq!((&decision.events[..], &decision.actions[..]), (&[][..], &[][..]));
}
