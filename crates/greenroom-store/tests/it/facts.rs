//! Facts from webhooks, recorded in any order and more than once.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::{RoomCreation, RoomName};
use greenroom_store::{
    OpenedRoom, ReplicaId, SessionKey, Subject, connect, fact, record_rooms_opened,
};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

use crate::session::{ORGANIZATION, find, now, record, session, template, timeline};
use crate::snapshots::hold_all;

#[derive(Debug, PartialEq, QueryableByName)]
struct Facts {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    user_joined_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    user_left_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    room_finished_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    agent_left_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    agent_left_identity: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    agent_left_reason: Option<String>,
    #[diesel(sql_type = BigInt)]
    due: i64,
}

async fn facts(db: &mut AsyncPgConnection) -> Facts {
    sql_query("select *, (next_check_at is not null and next_check_at <= now())::int::bigint as due from sessions")
        .get_result(db)
        .await
        .unwrap()
}

async fn set(db: &mut AsyncPgConnection, change: &str) {
    sql_query(format!("update sessions set {change}")).execute(db).await.unwrap();
}

/// LiveKit's time of an event: this number of seconds after a fixed time in the past.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

/// The time that is recorded for [`at`]: the end of that second.
fn recorded(seconds: i64) -> DateTime<Utc> {
    at(seconds) + TimeDelta::milliseconds(999)
}

fn user(n: u32) -> (String, String) {
    ("guest-00000001".to_owned(), format!("PA_{n}"))
}

fn joined(n: u32) -> Fact {
    let (identity, sid) = user(n);
    Fact::UserJoined { identity, sid }
}

fn left(n: u32) -> Fact {
    let (identity, sid) = user(n);
    Fact::UserLeft { identity, sid, reason: None }
}

fn agent_left(n: u32, reason: Option<&str>) -> Fact {
    Fact::AgentLeft {
        identity: format!("agent-AJ_{n}"),
        sid: format!("PA_A{n}"),
        reason: reason.map(str::to_owned),
    }
}

async fn database_with_session() -> (Database, AsyncPgConnection, RoomName) {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let started = session(1).insert(&mut db, None).await.unwrap().unwrap();
    (database, db, started.setup.room_name)
}

#[tokio::test]
async fn latest_fact_of_each_kind_is_kept_in_any_order() {
    let (_database, mut db, room) = database_with_session().await;
    for (fact, seconds) in [(joined(2), 20), (left(1), 15), (joined(1), 10), (left(1), 15)] {
        assert!(record(&mut db, Subject::Room(&room), &fact, at(seconds)).await.unwrap());
    }
    let now = facts(&mut db).await;
    assert_eq!((now.user_joined_at, now.user_left_at), (Some(recorded(20)), Some(recorded(15))));
    assert_eq!(
        (now.status.as_str(), now.due),
        ("pending", 1),
        "the status stays, and the session is due"
    );
    let events = timeline(&mut db, session(1).id).await;
    let events: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(
        events,
        ["user_joined", "user_left", "user_joined"],
        "each join and departure appears once"
    );
}

/// The holder of the bucket remembers the check, so the indexed time stays as it is.
#[tokio::test]
async fn holder_of_the_bucket_need_not_be_shown_that_the_session_is_due() {
    let (_database, mut db, room) = database_with_session().await;
    hold_all(&mut db).await;
    let (holder, other) = (ReplicaId(Uuid::nil()), ReplicaId(Uuid::max()));
    let is_held = async |db: &mut AsyncPgConnection, fact: &Fact, holder| {
        let recorded = greenroom_store::record(db, Subject::Room(&room), fact, at(1), holder).await;
        recorded.unwrap().unwrap().is_held
    };
    assert!(is_held(&mut db, &joined(1), Some(holder)).await);
    assert_eq!(facts(&mut db).await.due, 0);
    let key = SessionKey { organization_id: ORGANIZATION, id: session(1).id };
    let opened = OpenedRoom { key, sid: "RM_1".to_owned(), holder: Some(holder) };
    record_rooms_opened(&mut db, &[&opened], Duration::ZERO).await.unwrap();
    let until_join = "select *, (next_check_at = join_by)::int::bigint as due from sessions";
    let after: Facts = sql_query(until_join).get_result(&mut db).await.unwrap();
    assert_eq!(after.due, 1, "the next deadline is that of the join");

    assert!(!is_held(&mut db, &joined(2), Some(other)).await);
    assert_eq!(facts(&mut db).await.due, 1);

    set(&mut db, "next_check_at = now() + interval '1 hour'").await;
    let expired = "update keeper_replicas set lease_until = now() - interval '1 second'";
    sql_query(expired).execute(&mut db).await.unwrap();
    assert!(!is_held(&mut db, &joined(3), Some(holder)).await, "its lease has expired");
    assert_eq!(facts(&mut db).await.due, 1);

    set(
        &mut db,
        "status = 'ended', end_reason = 'requested', ended_at = now(),
          next_check_at = now() + interval '1 hour'",
    )
    .await;
    hold_all(&mut db).await;
    let reopened = Fact::RoomStarted { sid: "RM_2".to_owned() };
    assert!(is_held(&mut db, &reopened, Some(holder)).await);
    assert_eq!(facts(&mut db).await.due, 1, "the next holder must find the session");
}

#[tokio::test]
async fn time_in_the_future_is_capped_at_now() {
    let (_database, mut db, room) = database_with_session().await;
    let future = now(&mut db).await + TimeDelta::hours(1);
    record(&mut db, Subject::Room(&room), &joined(1), future).await.unwrap();
    let joined_at = facts(&mut db).await.user_joined_at.unwrap();
    assert!(joined_at <= now(&mut db).await, "{joined_at}");
}

#[tokio::test]
async fn latest_agent_departure_is_kept_and_gains_its_reason() {
    let (_database, mut db, room) = database_with_session().await;
    let departure = |facts: &Facts| {
        (facts.agent_left_at, facts.agent_left_identity.clone(), facts.agent_left_reason.clone())
    };
    let expected = |at, n: u32, reason: Option<&str>| {
        (Some(at), Some(format!("agent-AJ_{n}")), reason.map(str::to_owned))
    };
    record(&mut db, Subject::Room(&room), &agent_left(1, Some("CLIENT_INITIATED")), at(10))
        .await
        .unwrap();
    assert_eq!(
        departure(&facts(&mut db).await),
        expected(recorded(10), 1, Some("CLIENT_INITIATED"))
    );
    record(&mut db, Subject::Room(&room), &agent_left(2, None), at(20)).await.unwrap();
    assert_eq!(
        departure(&facts(&mut db).await),
        expected(recorded(20), 2, None),
        "the three columns change together"
    );
    record(&mut db, Subject::Room(&room), &agent_left(1, Some("CLIENT_INITIATED")), at(10))
        .await
        .unwrap();
    assert_eq!(
        departure(&facts(&mut db).await),
        expected(recorded(20), 2, None),
        "an earlier departure changes nothing"
    );

    // The keeper observed a departure first. Its webhook arrives later, with an earlier time.
    set(&mut db, "agent_left_at = '2030-01-01', agent_left_identity = 'agent-AJ_3', agent_left_reason = null").await;
    record(&mut db, Subject::Room(&room), &agent_left(3, Some("CLIENT_INITIATED")), at(30))
        .await
        .unwrap();
    let now = facts(&mut db).await;
    assert_eq!(now.agent_left_reason.as_deref(), Some("CLIENT_INITIATED"));
    assert!(now.agent_left_at > Some(recorded(30)), "the observed time stays");
}

#[tokio::test]
async fn agent_that_rejoins_has_no_departure() {
    let (_database, mut db, room) = database_with_session().await;
    let joined =
        |n: u32| Fact::AgentJoined { identity: format!("agent-AJ_{n}"), sid: format!("PA_B{n}") };
    record(&mut db, Subject::Room(&room), &agent_left(1, Some("SIGNAL_CLOSE")), at(10))
        .await
        .unwrap();
    record(&mut db, Subject::Room(&room), &joined(1), at(9)).await.unwrap();
    record(&mut db, Subject::Room(&room), &joined(2), at(12)).await.unwrap();
    let kept = facts(&mut db).await;
    assert_eq!(
        kept.agent_left_identity.as_deref(),
        Some("agent-AJ_1"),
        "this agent did not rejoin after it left"
    );
    record(&mut db, Subject::Room(&room), &joined(1), at(12)).await.unwrap();
    let back = facts(&mut db).await;
    assert_eq!((back.agent_left_at, back.agent_left_identity), (None, None));
}

#[tokio::test]
async fn fact_of_unknown_room_or_user_changes_nothing() {
    let (_database, mut db, room) = database_with_session().await;
    set(&mut db, "next_check_at = now() + interval '1 hour'").await;
    let before = facts(&mut db).await;
    let unknown_room = RoomName::new(at(0), 99);
    assert!(!record(&mut db, Subject::Room(&unknown_room), &joined(1), at(1)).await.unwrap());
    let stranger = Fact::UserJoined { identity: "ben".to_owned(), sid: "PA_9".to_owned() };
    assert!(!record(&mut db, Subject::Room(&room), &stranger, at(1)).await.unwrap());
    assert_eq!(facts(&mut db).await, before);
    assert_eq!(timeline(&mut db, session(1).id).await, []);
}

#[tokio::test]
async fn session_that_is_over_becomes_due_only_by_an_open_room() {
    let (_database, mut db, room) = database_with_session().await;
    let id = session(1).id;
    let ended = fact::end_session(&mut db, ORGANIZATION, id, None).await.unwrap();
    assert_eq!(ended.unwrap().status.as_str(), "ended");
    let subject = Subject::Session { organization: ORGANIZATION, id, end_user: None };
    assert!(!record(&mut db, subject, &Fact::RoomNotOpened, at(1)).await.unwrap());
    set(&mut db, "next_check_at = null").await;
    for fact in [Fact::RoomFinished, left(1), agent_left(1, None)] {
        assert!(record(&mut db, Subject::Room(&room), &fact, at(1)).await.unwrap());
        assert_eq!(facts(&mut db).await.due, 0, "{fact:?}");
    }
    record(&mut db, Subject::Room(&room), &Fact::RoomStarted { sid: "RM_2".to_owned() }, at(2))
        .await
        .unwrap();
    let now = facts(&mut db).await;
    assert_eq!((now.status.as_str(), now.due), ("ended", 1));
    let events = timeline(&mut db, id).await;
    let events: Vec<_> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(events, ["end_requested", "ended", "user_left", "agent_left", "room_created"]);
}

#[tokio::test]
async fn room_is_deferred_to_join_unless_it_was_opened() {
    let (_database, mut db, room) = database_with_session().await;
    let (id, subject) = (session(1).id, Subject::Room(&room));
    set(&mut db, "next_check_at = now() + interval '1 hour'").await;
    assert!(record(&mut db, subject, &Fact::RoomDeferred, at(1)).await.unwrap());
    let deferred = find(&mut db, id).await.unwrap();
    assert_eq!(deferred.room_creation, RoomCreation::OnJoin);
    assert_eq!(facts(&mut db).await.due, 0, "the first check stays as planned");

    set(&mut db, "room_creation = 'on_start'").await;
    record(&mut db, subject, &Fact::RoomOpened { sid: "RM_1".to_owned() }, at(1)).await.unwrap();
    assert!(!record(&mut db, subject, &Fact::RoomDeferred, at(1)).await.unwrap());
    let opened = find(&mut db, id).await.unwrap();
    assert_eq!(opened.room_creation, RoomCreation::OnStart);
}
