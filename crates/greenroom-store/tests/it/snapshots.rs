//! The keeper's reads and commits of sessions, and the detection of concurrent writes.

use std::time::Duration;

use chrono::TimeDelta;
use diesel::sql_query;
use diesel::sql_types::Uuid as SqlUuid;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Action, Decision, Event, Fact, TimelineEvent};
use greenroom_domain::template::AgentDeadline;
use greenroom_domain::{Bucket, ReconcileInterval, SessionId};
use greenroom_store::due::{due_sessions, neglected_sessions, scheduled_sessions};
use greenroom_store::{
    DueOrder, DueRange, DueSearch, HeldBuckets, NewSession, PolicyDefaults, ReplicaId,
    SessionSnapshot, SnapshotBatch, Subject, bucket, connect,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use uuid::Uuid;

use crate::session::{now, record, room, session, template, timeline};

pub const DEFAULTS: PolicyDefaults = PolicyDefaults {
    agent_deadline: AgentDeadline::constant::<30>(),
    reconcile_every: ReconcileInterval::constant::<30>(),
};

/// Takes all buckets, for the replica with the nil id.
pub async fn hold_all(db: &mut AsyncPgConnection) -> HeldBuckets {
    let replica = ReplicaId(Uuid::nil());
    bucket::register(db, replica).await.unwrap();
    let held = bucket::acquire(db, replica, Bucket::COUNT.into()).await.unwrap();
    assert_eq!(held.len(), usize::from(Bucket::COUNT));
    held
}

/// Reads the due sessions.
pub async fn read_due(db: &mut AsyncPgConnection, held: &HeldBuckets) -> SnapshotBatch {
    let keys = due_sessions(db, held, 1_000, DueSearch::ALL).await.unwrap();
    SessionSnapshot::read(db, &keys, held, DEFAULTS).await.unwrap()
}

/// Reads the neglected sessions, for a process that holds no bucket.
pub async fn read_neglected(db: &mut AsyncPgConnection) -> Vec<SessionSnapshot> {
    let none = HeldBuckets::new();
    let keys = neglected_sessions(db, &none, 1_000, DueRange::All).await.unwrap();
    SessionSnapshot::read(db, &keys, &none, DEFAULTS).await.unwrap().sessions
}

pub async fn insert_due_sessions(db: &mut AsyncPgConnection, count: u32) -> HeldBuckets {
    template(db, None).await;
    for number in 1..=count {
        let new = session(u128::from(number));
        NewSession { room_name: room(number), ..new }.insert(db, None).await.unwrap().unwrap();
    }
    sql_query("update sessions set next_check_at = now()").execute(db).await.unwrap();
    hold_all(db).await
}

/// Makes a session due, and increments its revision as every writer does.
async fn make_due(db: &mut AsyncPgConnection, id: SessionId) {
    sql_query("update sessions set next_check_at = now(), revision = revision + 1 where id = $1")
        .bind::<SqlUuid, _>(id)
        .execute(db)
        .await
        .unwrap();
}

pub async fn read_snapshots(
    db: &mut AsyncPgConnection,
    held: &HeldBuckets,
) -> Vec<SessionSnapshot> {
    read_due(db, held).await.sessions
}

/// A decision with these events and actions, and the next check in an hour.
pub fn decision(claim: &SessionSnapshot, events: &[Event], actions: &[Action]) -> Decision {
    let mut state = claim.session.state.clone();
    state.next_check_at = state.next_check_at.map(|at| at + TimeDelta::hours(1));
    let check_at = state.next_check_at;
    Decision { state, events: events.to_vec(), actions: actions.to_vec(), check_at }
}

#[tokio::test]
async fn due_sessions_of_held_buckets_are_read() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 4).await;
    let batch = read_due(&mut db, &held).await;
    assert_eq!(batch.sessions.len(), 4);
    assert!((now(&mut db).await - batch.at).abs() < TimeDelta::seconds(30), "{}", batch.at);

    let id = SessionId(Uuid::from_u128(3));
    let only = [(id.bucket(), held[&id.bucket()])].into();
    let keys = due_sessions(&mut db, &only, 10, DueSearch::ALL).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [id]);
    let scheduled = scheduled_sessions(&mut db, &only, 10).await.unwrap();
    assert_eq!(scheduled.iter().map(|session| session.key).collect::<Vec<_>>(), keys);

    sql_query("update sessions set next_check_at = now() + interval '1 hour'")
        .execute(&mut db)
        .await
        .unwrap();
    assert!(due_sessions(&mut db, &held, 10, DueSearch::ALL).await.unwrap().is_empty());
    assert_eq!(scheduled_sessions(&mut db, &held, 10).await.unwrap().len(), 4);
    let read = SessionSnapshot::read(&mut db, &keys, &held, DEFAULTS).await.unwrap();
    assert_eq!(read.sessions.len(), 1, "a session can be checked before it is due");
    let read = SessionSnapshot::read(&mut db, &keys, &HeldBuckets::new(), DEFAULTS).await.unwrap();
    assert!(read.sessions.is_empty(), "its bucket is not held");
}

#[tokio::test]
async fn recent_search_leaves_out_sessions_that_have_been_due_for_long() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 1).await;
    let recent = DueSearch { range: DueRange::Recent, ..DueSearch::ALL };
    assert_eq!(due_sessions(&mut db, &held, 10, recent).await.unwrap().len(), 1);
    sql_query("update sessions set next_check_at = now() - interval '36 seconds'")
        .execute(&mut db)
        .await
        .unwrap();
    assert!(due_sessions(&mut db, &held, 10, recent).await.unwrap().is_empty());
    assert_eq!(due_sessions(&mut db, &held, 10, DueSearch::ALL).await.unwrap().len(), 1);
    for (range, count) in [(DueRange::Recent, 0), (DueRange::All, 1)] {
        let neglected = neglected_sessions(&mut db, &HeldBuckets::new(), 10, range).await.unwrap();
        assert_eq!(neglected.len(), count, "{range:?}");
    }
}

#[tokio::test]
async fn commit_with_outdated_revision_is_refused() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 1).await;
    let claim = read_snapshots(&mut db, &held).await.remove(0);
    let id = claim.id;
    let joined = Event { event: TimelineEvent::UserJoined, sid: Some("PA_1".to_owned()) };
    let left = Event { event: TimelineEvent::UserLeft, sid: None };
    let first = decision(&claim, &[joined.clone(), joined, left], &[Action::DeleteRoom]);
    assert!(claim.commit(&mut db, &first).await.unwrap());
    let events = timeline(&mut db, id).await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(!claim.commit(&mut db, &first).await.unwrap(), "the first commit changed the revision");
    assert!(read_snapshots(&mut db, &held).await.is_empty());

    make_due(&mut db, id).await;
    let second = read_snapshots(&mut db, &held).await.remove(0);
    // A concurrent write between the observation and the commit.
    make_due(&mut db, id).await;
    let stale = decision(&second, &[Event { event: TimelineEvent::Failed, sid: None }], &[]);
    assert!(!second.commit(&mut db, &stale).await.unwrap());
    assert_eq!(timeline(&mut db, id).await.len(), 2);
}

/// The statement begins before the other writer commits, so its snapshot has the same revision.
#[tokio::test]
async fn commit_compares_revision_after_waiting_for_another_writer() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let mut other = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 1).await;
    let claim = read_snapshots(&mut db, &held).await.remove(0);
    let failed = Event { event: TimelineEvent::Failed, sid: None };
    let stale = decision(&claim, &[failed], &[]);
    sql_query("begin").execute(&mut other).await.unwrap();
    make_due(&mut other, claim.id).await;
    let write = async {
        wait_until("the commit to wait", Duration::from_secs(10), async || {
            let waits = "select from pg_locks join pg_stat_activity using (pid)
                 where not granted and datname = current_database()";
            Ok((sql_query(waits).execute(&mut other).await? > 0).then_some(()))
        })
        .await
        .unwrap();
        sql_query("commit").execute(&mut other).await.unwrap();
    };
    let (committed, ()) = tokio::join!(claim.commit(&mut db, &stale), write);
    assert!(!committed.unwrap());
    assert!(timeline(&mut db, claim.id).await.is_empty());
}

#[tokio::test]
async fn writes_of_a_process_that_lost_its_bucket_are_refused() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 1).await;
    let claim = read_snapshots(&mut db, &held).await.remove(0);
    let failed = Event { event: TimelineEvent::Failed, sid: None };
    let stale = decision(&claim, &[failed], &[Action::DeleteRoom]);
    let expire = "update keeper_replicas set lease_until = now() - interval '1 second'";
    let (late, other) = (ReplicaId(Uuid::nil()), ReplicaId(Uuid::max()));
    for (case, lost) in [("expired", false), ("taken by another process", true)] {
        sql_query(expire).execute(&mut db).await.unwrap();
        if lost {
            bucket::register(&mut db, other).await.unwrap();
            bucket::acquire(&mut db, other, Bucket::COUNT.into()).await.unwrap();
        }
        assert!(!claim.commit(&mut db, &stale).await.unwrap(), "{case}");
        let rescheduled = SessionSnapshot::reschedule(&mut db, &[(&claim, None)]).await.unwrap();
        assert!(rescheduled.is_empty(), "{case}");
        // The process renews its lease too late.
        assert_eq!(bucket::renew(&mut db, late).await.unwrap(), None, "{case}");
        bucket::register(&mut db, late).await.unwrap();
        assert!(!claim.commit(&mut db, &stale).await.unwrap(), "{case}");
    }
    assert!(timeline(&mut db, claim.id).await.is_empty());
}

/// The holder of a bucket does not check a session in time, for example because it cannot reach
/// LiveKit.
#[tokio::test]
async fn neglected_session_may_be_checked_without_its_bucket() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    insert_due_sessions(&mut db, 2).await;
    assert!(read_neglected(&mut db).await.is_empty(), "the holder has some time");
    let neglect = "update sessions set next_check_at = now() - interval '21 seconds'
         where id = '00000000-0000-0000-0000-000000000001'";
    sql_query(neglect).execute(&mut db).await.unwrap();
    let mut neglected = read_neglected(&mut db).await;
    assert_eq!(neglected.len(), 1);
    let claim = neglected.remove(0);
    assert_eq!(claim.epoch, None);
    assert!(claim.commit(&mut db, &decision(&claim, &[], &[])).await.unwrap());
    assert!(!claim.commit(&mut db, &decision(&claim, &[], &[])).await.unwrap(), "the revision");

    sql_query(neglect).execute(&mut db).await.unwrap();
    let claim = read_neglected(&mut db).await.remove(0);
    let later = Some(now(&mut db).await + TimeDelta::seconds(30));
    let rescheduled = SessionSnapshot::reschedule(&mut db, &[(&claim, later)]).await.unwrap();
    assert!(rescheduled.contains(&claim.id));
}

/// The claim of the version before buckets.
const PREVIOUS_CLAIM: &str =
    "update sessions set lease_until = now() + interval '15 seconds', revision = revision + 1
     where next_check_at <= now() and (lease_until is null or lease_until <= now())";

#[tokio::test]
async fn decisions_beside_the_previous_version_are_committed_once() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 1).await;
    // The previous version compares the revision of its claim in the same way.
    let previous_commit = "update sessions set next_check_at = now(), lease_until = null,
         revision = revision + 1 where revision = ";

    let before = read_snapshots(&mut db, &held).await.remove(0);
    assert_eq!(sql_query(PREVIOUS_CLAIM).execute(&mut db).await.unwrap(), 1);
    let stale = decision(&before, &[], &[]);
    assert!(!before.commit(&mut db, &stale).await.unwrap(), "the claim changed the revision");

    let after = read_snapshots(&mut db, &held).await.remove(0);
    let claimed = after.revision;
    assert!(after.commit(&mut db, &decision(&after, &[], &[])).await.unwrap());
    let refused = sql_query(format!("{previous_commit}{claimed}")).execute(&mut db).await.unwrap();
    assert_eq!(refused, 0, "the previous version finds another revision");
}

#[tokio::test]
async fn dispatch_time_is_that_of_the_commit() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 1).await;
    for (action, is_dispatched) in [(Action::Dispatch, true), (Action::AnnounceEnd, false)] {
        let claim = read_snapshots(&mut db, &held).await.remove(0);
        let observed_at = now(&mut db).await - TimeDelta::seconds(8);
        let mut late = decision(&claim, &[], &[action]);
        late.state.last_dispatch_at = Some(observed_at);
        assert!(claim.commit(&mut db, &late).await.unwrap());
        make_due(&mut db, claim.id).await;
        let next = read_snapshots(&mut db, &held).await.remove(0);
        let dispatched_at = next.session.state.last_dispatch_at.unwrap();
        let is_commit_time = dispatched_at >= observed_at + TimeDelta::seconds(7);
        assert_eq!(is_commit_time, is_dispatched, "{dispatched_at}");
    }
}

#[tokio::test]
async fn observed_and_reported_departure_is_one_event() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 1).await;
    let claim = read_snapshots(&mut db, &held).await.remove(0);
    let joined = Event { event: TimelineEvent::AgentJoined, sid: Some("PA_7".to_owned()) };
    assert!(claim.commit(&mut db, &decision(&claim, &[joined], &[])).await.unwrap());
    make_due(&mut db, claim.id).await;
    let claim = read_snapshots(&mut db, &held).await.remove(0);
    let left = Event { event: TimelineEvent::AgentLeft, sid: None };
    assert!(claim.commit(&mut db, &decision(&claim, &[left], &[])).await.unwrap());
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
    let held = insert_due_sessions(&mut db, 1).await;
    let claim = read_snapshots(&mut db, &held).await.remove(0);
    for (identity, sid) in [("agent-AJ_1", "PA_1"), ("agent-AJ_2", "PA_2")] {
        let joined = Fact::AgentJoined { identity: identity.to_owned(), sid: sid.to_owned() };
        let at = now(&mut db).await;
        assert!(record(&mut db, Subject::Room(&claim.room_name), &joined, at).await.unwrap());
    }
    let claim = read_snapshots(&mut db, &held).await.remove(0);
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
    let held = insert_due_sessions(&mut db, 3).await;
    let read = read_snapshots(&mut db, &held).await;
    make_due(&mut db, read[1].id).await;
    let later = Some(now(&mut db).await + TimeDelta::seconds(30));
    let reschedule: Vec<_> = read.iter().map(|claim| (claim, later)).collect();
    let done = SessionSnapshot::reschedule(&mut db, &reschedule).await.unwrap();
    assert_eq!(done.len(), 2);
    assert!(!done.contains(&read[1].id));
    assert_eq!(read_snapshots(&mut db, &held).await.len(), 1);
}

#[tokio::test]
async fn search_starts_with_oldest_or_newest_due_session() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let held = insert_due_sessions(&mut db, 3).await;
    sql_query("update sessions set next_check_at = now() - interval '10 seconds' + right(id::text, 1)::int * interval '1 second'")
        .execute(&mut db)
        .await
        .unwrap();
    for (order, numbers) in [(DueOrder::NewestFirst, [3, 2]), (DueOrder::OldestFirst, [1, 2])] {
        let keys =
            due_sessions(&mut db, &held, 2, DueSearch { order, ..DueSearch::ALL }).await.unwrap();
        let found: Vec<_> = keys.iter().map(|key| key.id.0.as_u128()).collect();
        assert_eq!(found, numbers, "{order:?}");
    }
}
