//! Claims and commits of the keeper: leases, and the detection of concurrent writes.

use chrono::TimeDelta;
use diesel::sql_query;
use diesel::sql_types::Uuid;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Action, Decision, Event, Fact, TimelineEvent};
use greenroom_domain::template::AgentDeadline;
use greenroom_domain::{ReconcileInterval, SessionId};
use greenroom_store::{
    Claim, ClaimOrder, NewSession, PolicyDefaults, Subject, Urgency, connect, record,
};
use greenroom_testkit::pg::Database;

use crate::session::{now, room, session, template, timeline};

pub const DEFAULTS: PolicyDefaults = PolicyDefaults {
    agent_deadline: AgentDeadline::constant::<30>(),
    reconcile_every: ReconcileInterval::constant::<30>(),
};

async fn insert_due_sessions(db: &mut AsyncPgConnection, count: u32) {
    template(db, None).await;
    for number in 1..=count {
        let new = session(u128::from(number));
        NewSession { room_name: room(number), ..new }.insert(db, None).await.unwrap().unwrap();
    }
    sql_query("update sessions set next_check_at = now()").execute(db).await.unwrap();
}

/// Makes a session due, and increments its revision as every writer does.
async fn make_due(db: &mut AsyncPgConnection, id: SessionId) {
    sql_query("update sessions set next_check_at = now(), revision = revision + 1 where id = $1")
        .bind::<Uuid, _>(id)
        .execute(db)
        .await
        .unwrap();
}

async fn claim_all(db: &mut AsyncPgConnection) -> Vec<Claim> {
    Claim::due(db, 10, Urgency::Any, ClaimOrder::OldestFirst, DEFAULTS).await.unwrap().sessions
}

/// A decision with these events and actions, and the next check 15 s after the lease expires.
fn decision(claim: &Claim, events: &[Event], actions: &[Action]) -> Decision {
    let mut state = claim.session.state.clone();
    state.next_check_at = claim.lease_until.map(|lease| lease + TimeDelta::seconds(15));
    Decision { state, events: events.to_vec(), actions: actions.to_vec() }
}

#[tokio::test]
async fn due_session_is_claimed_once() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let mut other = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 4).await;
    let claims =
        Claim::due(&mut db, 3, Urgency::Any, ClaimOrder::OldestFirst, DEFAULTS).await.unwrap();
    assert_eq!(claims.sessions.len(), 3);
    assert!((now(&mut db).await - claims.at).abs() < TimeDelta::seconds(30), "{}", claims.at);
    assert_eq!(claim_all(&mut other).await.len(), 1, "the session that is left");
    assert!(claim_all(&mut db).await.is_empty());

    sql_query("update sessions set lease_until = now() - interval '1 second'")
        .execute(&mut db)
        .await
        .unwrap();
    assert_eq!(claim_all(&mut other).await.len(), 4, "expired leases do not block a claim");
}

#[tokio::test]
async fn commit_with_outdated_revision_is_refused() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 1).await;
    let mut claim = claim_all(&mut db).await.remove(0);
    let id = claim.id;
    let joined = Event { event: TimelineEvent::UserJoined, sid: Some("PA_1".to_owned()) };
    let left = Event { event: TimelineEvent::UserLeft, sid: None };
    let first = decision(&claim, &[joined.clone(), joined, left], &[Action::DeleteRoom]);
    assert!(claim.commit(&mut db, &first).await.unwrap());
    let events = timeline(&mut db, id).await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(!claim.commit(&mut db, &first).await.unwrap(), "the first commit changed the revision");

    // The lease lasts while the actions run, and the release allows a new claim.
    make_due(&mut db, id).await;
    assert!(claim_all(&mut db).await.is_empty());
    claim.release(&mut db).await.unwrap();
    let mut second = claim_all(&mut db).await.remove(0);
    // A concurrent write between the observation and the commit.
    make_due(&mut db, id).await;
    let stale = decision(&second, &[Event { event: TimelineEvent::Failed, sid: None }], &[]);
    assert!(!second.commit(&mut db, &stale).await.unwrap());
    assert_eq!(timeline(&mut db, id).await.len(), 2);
    claim.release(&mut db).await.unwrap();
    assert!(claim_all(&mut db).await.is_empty(), "the release of an old lease keeps the new one");
    second.release(&mut db).await.unwrap();
    assert_eq!(claim_all(&mut db).await.len(), 1);
}

#[tokio::test]
async fn dispatch_time_is_that_of_the_commit() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 1).await;
    for (action, is_dispatched) in [(Action::Dispatch, true), (Action::AnnounceEnd, false)] {
        let mut claim = claim_all(&mut db).await.remove(0);
        let observed_at = now(&mut db).await - TimeDelta::seconds(8);
        let mut late = decision(&claim, &[], &[action]);
        late.state.last_dispatch_at = Some(observed_at);
        assert!(claim.commit(&mut db, &late).await.unwrap());
        claim.release(&mut db).await.unwrap();
        make_due(&mut db, claim.id).await;
        let next = claim_all(&mut db).await.remove(0);
        let dispatched_at = next.session.state.last_dispatch_at.unwrap();
        let is_commit_time = dispatched_at >= observed_at + TimeDelta::seconds(7);
        assert_eq!(is_commit_time, is_dispatched, "{dispatched_at}");
        next.release(&mut db).await.unwrap();
        make_due(&mut db, claim.id).await;
    }
}

#[tokio::test]
async fn observed_and_reported_departure_is_one_event() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 1).await;
    let mut claim = claim_all(&mut db).await.remove(0);
    let joined = Event { event: TimelineEvent::AgentJoined, sid: Some("PA_7".to_owned()) };
    let left = Event { event: TimelineEvent::AgentLeft, sid: None };
    let observed = decision(&claim, &[joined, left], &[]);
    assert!(claim.commit(&mut db, &observed).await.unwrap());
    let reported =
        Fact::AgentLeft { identity: "agent-AJ_1".to_owned(), sid: "PA_7".to_owned(), reason: None };
    let at = now(&mut db).await;
    assert!(record(&mut db, Subject::Room(&claim.room_name), &reported, at).await.unwrap());
    let events = timeline(&mut db, claim.id).await;
    let events: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(events, ["agent_joined", "agent_left"], "the departure appears once");
}

#[tokio::test]
async fn observed_departure_has_the_sid_of_that_agent() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 1).await;
    let mut claim = claim_all(&mut db).await.remove(0);
    for (identity, sid) in [("agent-AJ_1", "PA_1"), ("agent-AJ_2", "PA_2")] {
        let joined = Fact::AgentJoined { identity: identity.to_owned(), sid: sid.to_owned() };
        let at = now(&mut db).await;
        assert!(record(&mut db, Subject::Room(&claim.room_name), &joined, at).await.unwrap());
    }
    claim.release(&mut db).await.unwrap();
    claim = claim_all(&mut db).await.remove(0);
    let left = Event { event: TimelineEvent::AgentLeft, sid: None };
    let mut observed = decision(&claim, &[left], &[]);
    observed.state.agent_left_identity = Some("agent-AJ_1".to_owned());
    assert!(claim.commit(&mut db, &observed).await.unwrap());
    for (identity, sid) in [("agent-AJ_1", "PA_1"), ("agent-AJ_2", "PA_2")] {
        let (identity, sid) = (identity.to_owned(), sid.to_owned());
        let left = Fact::AgentLeft { identity, sid, reason: None };
        let at = now(&mut db).await;
        assert!(record(&mut db, Subject::Room(&claim.room_name), &left, at).await.unwrap());
    }
    let events = timeline(&mut db, claim.id).await;
    let left = events.iter().filter(|event| event.event == TimelineEvent::AgentLeft);
    let left: Vec<_> = left.map(|event| event.detail.to_string()).collect();
    assert_eq!(left.len(), 2, "each departure once: {left:?}");
    assert!(left[0].contains("agent-AJ_1") && left[1].contains("agent-AJ_2"), "{left:?}");
}

#[tokio::test]
async fn reschedule_skips_sessions_with_outdated_revision() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 3).await;
    let claims = claim_all(&mut db).await;
    make_due(&mut db, claims[1].id).await;
    let later = Some(now(&mut db).await + TimeDelta::seconds(30));
    let reschedule: Vec<_> = claims.iter().map(|claim| (claim.clone(), later)).collect();
    let done = Claim::reschedule(&mut db, &reschedule).await.unwrap();
    assert_eq!(done.len(), 2);
    assert!(!done.contains(&claims[1].id));
    assert!(claim_all(&mut db).await.is_empty());
    claims[1].release(&mut db).await.unwrap();
    assert_eq!(claim_all(&mut db).await.len(), 1);
}

#[tokio::test]
async fn in_progress_claim_skips_idle_sessions() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 5).await;
    let condition =
        |number: u32| format!("where id = '00000000-0000-0000-0000-00000000000{number}'");
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
        // A webhook reported that the agent left.
        (5, "room_created_at = now(), agent_status = 'ready', agent_identity = 'a', agent_left_identity = 'a'".to_owned()),
    ] {
        sql_query(format!("update sessions set {change} {}", condition(number)))
            .execute(&mut db)
            .await
            .unwrap();
    }
    let claims = Claim::due(&mut db, 10, Urgency::InProgress, ClaimOrder::OldestFirst, DEFAULTS)
        .await
        .unwrap()
        .sessions;
    let mut in_progress: Vec<_> = claims.iter().map(|claim| claim.id.0.as_u128()).collect();
    in_progress.sort_unstable();
    assert_eq!(in_progress, [1, 3, 5]);
    assert_eq!(claim_all(&mut db).await.len(), 2, "the idle sessions");
}

#[tokio::test]
async fn claim_starts_with_oldest_or_newest_due_session() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 3).await;
    sql_query("update sessions set next_check_at = now() - interval '10 seconds' + right(id::text, 1)::int * interval '1 second'")
        .execute(&mut db)
        .await
        .unwrap();
    for (order, number) in
        [(ClaimOrder::NewestFirst, 3), (ClaimOrder::OldestFirst, 1), (ClaimOrder::NewestFirst, 2)]
    {
        let claim =
            Claim::due(&mut db, 1, Urgency::Any, order, DEFAULTS).await.unwrap().sessions.remove(0);
        assert_eq!(claim.id.0.as_u128(), number, "{order:?}");
    }
}
