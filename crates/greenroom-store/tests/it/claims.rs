//! ClaimBatch: each due session is one process's at a time, and nothing that was written meanwhile is
//! overwritten.

use chrono::TimeDelta;
use diesel::sql_query;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::RoomName;
use greenroom_domain::lifecycle::{Action, Decision, Event, TimelineEvent};
use greenroom_store::{
    Claim, ClaimOrder, Fact, NewSession, Session, SessionEvent, Urgency, connect,
};
use greenroom_testkit::pg::Database;

use crate::session::{ORGANIZATION, now, session, template};

async fn due_sessions(db: &mut AsyncPgConnection, count: u32) {
    template(db, None).await;
    for number in 1..=count {
        let new = session(u128::from(number));
        let room_name = RoomName::new(new.created_at, number);
        NewSession { room_name, ..new }.insert(db).await.unwrap().unwrap();
    }
    sql_query("update sessions set next_check_at = now()").execute(db).await.unwrap();
}

async fn take(db: &mut AsyncPgConnection) -> Vec<Claim> {
    Claim::due(db, 10, Urgency::Any, ClaimOrder::OldestFirst).await.unwrap().sessions
}

/// A decision that says so much, and when to look again.
fn decision(claim: &Claim, events: &[Event], actions: &[Action]) -> Decision {
    let mut state = claim.state.clone();
    state.next_check_at = claim.lease_until.map(|lease| lease + TimeDelta::seconds(15));
    Decision { state, events: events.to_vec(), actions: actions.to_vec() }
}

#[tokio::test]
async fn a_due_session_is_claimed_once() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let mut other = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 4).await;
    let claims = Claim::due(&mut db, 3, Urgency::Any, ClaimOrder::OldestFirst).await.unwrap();
    assert_eq!(claims.sessions.len(), 3);
    assert!((now(&mut db).await - claims.at).abs() < TimeDelta::seconds(30), "{}", claims.at);
    assert_eq!(take(&mut other).await.len(), 1, "the one that is left");
    assert!(take(&mut db).await.is_empty());

    sql_query("update sessions set lease_until = now() - interval '1 second'")
        .execute(&mut db)
        .await
        .unwrap();
    assert_eq!(take(&mut other).await.len(), 4, "leases that ran out are nobody's");
}

#[tokio::test]
async fn a_decision_is_written_once_and_not_over_what_is_newer() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 1).await;
    let mut claim = take(&mut db).await.remove(0);
    let id = claim.id;
    let joined = Event { event: TimelineEvent::UserJoined, sid: Some("PA_1".to_owned()) };
    let left = Event { event: TimelineEvent::UserLeft, sid: None };
    let first = decision(&claim, &[joined.clone(), joined, left], &[Action::DeleteRoom]);
    assert!(claim.commit(&mut db, &first).await.unwrap());
    let events = SessionEvent::list(&mut db, ORGANIZATION, id).await.unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(!claim.commit(&mut db, &first).await.unwrap(), "its revision is over");

    // While it acts nobody else looks, and when it has acted somebody may.
    Session::make_due(&mut db, ORGANIZATION, id).await.unwrap();
    assert!(take(&mut db).await.is_empty());
    claim.release(&mut db).await.unwrap();
    let mut again = take(&mut db).await.remove(0);
    // Somebody writes between the look and the commit.
    Session::make_due(&mut db, ORGANIZATION, id).await.unwrap();
    let stale = decision(&again, &[Event { event: TimelineEvent::Failed, sid: None }], &[]);
    assert!(!again.commit(&mut db, &stale).await.unwrap());
    assert_eq!(SessionEvent::list(&mut db, ORGANIZATION, id).await.unwrap().len(), 2);
    claim.release(&mut db).await.unwrap();
    assert!(take(&mut db).await.is_empty(), "an old lease does not free a new one");
    again.release(&mut db).await.unwrap();
    assert_eq!(take(&mut db).await.len(), 1);
}

#[tokio::test]
async fn an_agent_is_asked_for_when_that_is_written_not_when_it_was_looked_at() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 1).await;
    for (action, is_asked) in [(Action::Dispatch, true), (Action::AnnounceEnd, false)] {
        let mut claim = take(&mut db).await.remove(0);
        let looked_at = now(&mut db).await - TimeDelta::seconds(8);
        let mut late = decision(&claim, &[], &[action]);
        late.state.last_dispatch_at = Some(looked_at);
        assert!(claim.commit(&mut db, &late).await.unwrap());
        claim.release(&mut db).await.unwrap();
        Session::make_due(&mut db, ORGANIZATION, claim.id).await.unwrap();
        let again = take(&mut db).await.remove(0);
        let asked_at = again.state.last_dispatch_at.unwrap();
        assert_eq!(asked_at >= looked_at + TimeDelta::seconds(7), is_asked, "{asked_at}");
        again.release(&mut db).await.unwrap();
        Session::make_due(&mut db, ORGANIZATION, claim.id).await.unwrap();
    }
}

#[tokio::test]
async fn a_leaving_that_was_seen_is_that_of_the_last_stay() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 1).await;
    let mut claim = take(&mut db).await.remove(0);
    let joined = Event { event: TimelineEvent::AgentJoined, sid: Some("PA_7".to_owned()) };
    let left = Event { event: TimelineEvent::AgentLeft, sid: None };
    let seen = decision(&claim, &[joined, left], &[]);
    assert!(claim.commit(&mut db, &seen).await.unwrap());
    let told =
        Fact::AgentLeft { identity: "agent-AJ_1".to_owned(), sid: "PA_7".to_owned(), reason: None };
    let at = now(&mut db).await;
    assert!(told.record(&mut db, &claim.room_name, at).await.unwrap());
    let events = SessionEvent::list(&mut db, ORGANIZATION, claim.id).await.unwrap();
    let events: Vec<_> = events.iter().map(|one| one.event.as_str()).collect();
    assert_eq!(events, ["agent_joined", "agent_left"], "seen and told, it stands there once");
}

#[tokio::test]
async fn of_several_agents_the_stay_that_has_ended_is_that_of_the_one_that_left() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 1).await;
    let mut claim = take(&mut db).await.remove(0);
    for (identity, sid) in [("agent-AJ_1", "PA_1"), ("agent-AJ_2", "PA_2")] {
        let joined = Fact::AgentJoined { identity: identity.to_owned(), sid: sid.to_owned() };
        let at = now(&mut db).await;
        assert!(joined.record(&mut db, &claim.room_name, at).await.unwrap());
    }
    claim.release(&mut db).await.unwrap();
    claim = take(&mut db).await.remove(0);
    let mut seen = decision(&claim, &[Event { event: TimelineEvent::AgentLeft, sid: None }], &[]);
    seen.state.agent_left_identity = Some("agent-AJ_1".to_owned());
    assert!(claim.commit(&mut db, &seen).await.unwrap());
    for (identity, sid) in [("agent-AJ_1", "PA_1"), ("agent-AJ_2", "PA_2")] {
        let (identity, sid) = (identity.to_owned(), sid.to_owned());
        let left = Fact::AgentLeft { identity, sid, reason: None };
        let at = now(&mut db).await;
        assert!(left.record(&mut db, &claim.room_name, at).await.unwrap());
    }
    let events = SessionEvent::list(&mut db, ORGANIZATION, claim.id).await.unwrap();
    let left = events.iter().filter(|one| one.event == TimelineEvent::AgentLeft);
    let left: Vec<_> = left.map(|one| one.detail.to_string()).collect();
    assert_eq!(left.len(), 2, "each once: {left:?}");
    assert!(left[0].contains("agent-AJ_1") && left[1].contains("agent-AJ_2"), "{left:?}");
}

#[tokio::test]
async fn many_looks_are_put_off_at_once_but_those_that_something_happened_to() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 3).await;
    let claims = take(&mut db).await;
    Session::make_due(&mut db, ORGANIZATION, claims[1].id).await.unwrap();
    let later = Some(now(&mut db).await + TimeDelta::seconds(30));
    let reschedule: Vec<_> = claims.iter().map(|claim| (claim.clone(), later)).collect();
    let done = Claim::reschedule(&mut db, &reschedule).await.unwrap();
    assert_eq!(done.len(), 2);
    assert!(!done.contains(&claims[1].id));
    assert!(take(&mut db).await.is_empty());
    claims[1].release(&mut db).await.unwrap();
    assert_eq!(take(&mut db).await.len(), 1);
}

#[tokio::test]
async fn when_calls_run_low_what_is_at_rest_waits() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 5).await;
    let of = |number: u32| format!("where id = '00000000-0000-0000-0000-00000000000{number}'");
    let active =
        "status = 'active', started_at = now(), room_created_at = now(), user_joined_at = now()";
    for (number, change) in [
        (1, "agent_status = 'dispatched'".to_owned()),
        (
            2,
            format!(
                "{active}, end_by = now() + interval '1 hour', agent_status = 'ready', agent_identity = 'a'"
            ),
        ),
        (3, format!("{active}, end_by = now(), agent_status = 'ready', agent_identity = 'a'")),
        (4, "room_created_at = now()".to_owned()),
        // Its agent has left, as somebody told.
        (5, "room_created_at = now(), agent_status = 'ready', agent_identity = 'a', agent_left_identity = 'a'".to_owned()),
    ] {
        sql_query(format!("update sessions set {change} {}", of(number)))
            .execute(&mut db)
            .await
            .unwrap();
    }
    let urgent = Claim::due(&mut db, 10, Urgency::InProgress, ClaimOrder::OldestFirst)
        .await
        .unwrap()
        .sessions;
    let mut urgent: Vec<_> = urgent.iter().map(|claim| claim.id.0.as_u128()).collect();
    urgent.sort_unstable();
    assert_eq!(urgent, [1, 3, 5]);
    assert_eq!(take(&mut db).await.len(), 2, "the others when there is room");
}

#[tokio::test]
async fn claims_begin_with_the_oldest_or_with_the_newest() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    due_sessions(&mut db, 3).await;
    sql_query("update sessions set next_check_at = now() - interval '10 seconds' + right(id::text, 1)::int * interval '1 second'")
        .execute(&mut db)
        .await
        .unwrap();
    for (first, number) in
        [(ClaimOrder::NewestFirst, 3), (ClaimOrder::OldestFirst, 1), (ClaimOrder::NewestFirst, 2)]
    {
        let one = Claim::due(&mut db, 1, Urgency::Any, first).await.unwrap().sessions.remove(0);
        assert_eq!(one.id.0.as_u128(), number, "{first:?}");
    }
}
