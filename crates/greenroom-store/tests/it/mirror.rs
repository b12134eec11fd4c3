//! Rules that exist in the domain and in SQL, compared on random sessions.

use std::fmt::Write;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{Array, Bool, Nullable, Text, Timestamptz};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{Fact, SessionPolicy, State, TrackedSession};
use greenroom_domain::{AgentStatus, EndReason, ParticipantIdentity, RoomCreation, SessionStatus};
use greenroom_store::idempotency::RESUMABLE;
use greenroom_store::{NewSession, Subject, claim, connect, record};
use greenroom_testkit::pg::Database;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::session::{ORGANIZATION, session, template};

/// Number of random sessions per rule.
const CASES: usize = 400;

const USER: &str = "guest-00000001";

/// A state as columns, relative to `now()` in whole seconds.
#[derive(Debug, Clone)]
struct Columns {
    status: SessionStatus,
    agent_status: AgentStatus,
    room_creation: RoomCreation,
    times: [Option<i64>; 12],
    agent_identity: Option<&'static str>,
    agent_left: Option<(&'static str, Option<&'static str>)>,
    join_by: i64,
}

/// The columns of `Columns::times`.
const TIMES: [&str; 12] = [
    "started_at",
    "end_by",
    "room_created_at",
    "room_missing_since",
    "room_finished_at",
    "room_gone_at",
    "user_joined_at",
    "user_left_at",
    "agent_wanted_since",
    "last_dispatch_at",
    "agent_left_at",
    "next_check_at",
];

fn columns() -> impl Strategy<Value = Columns> {
    let identity = || prop_oneof![Just("agent-AJ_1"), Just("agent-AJ_2")];
    let reason = prop::option::of(prop_oneof![Just("CLIENT_INITIATED"), Just("SIGNAL_CLOSE")]);
    let time = || prop::option::weighted(0.6, -60_i64..60);
    (
        prop::sample::select(SessionStatus::ALL),
        prop::sample::select(AgentStatus::ALL),
        prop_oneof![Just(RoomCreation::OnStart), Just(RoomCreation::OnJoin)],
        prop::array::uniform12(time()),
        prop::option::of(identity()),
        prop::option::of((identity(), reason)),
        -60_i64..60,
    )
        .prop_map(
            |(status, agent_status, room_creation, times, agent_identity, agent_left, join_by)| {
                Columns {
                    status,
                    agent_status,
                    room_creation,
                    times,
                    agent_identity,
                    agent_left,
                    join_by,
                }
            },
        )
}

fn fact() -> impl Strategy<Value = Fact> {
    let sid = || prop_oneof![Just("S_1".to_owned()), Just("S_2".to_owned())];
    let agent = || prop_oneof![Just("agent-AJ_1".to_owned()), Just("agent-AJ_2".to_owned())];
    let user = || prop_oneof![3 => Just(USER.to_owned()), 1 => Just("stranger".to_owned())];
    let reason = || prop::option::of(Just("CLIENT_INITIATED".to_owned()));
    prop_oneof![
        sid().prop_map(|sid| Fact::RoomOpened { sid }),
        Just(Fact::RoomNotOpened),
        Just(Fact::EndRequested),
        sid().prop_map(|sid| Fact::RoomStarted { sid }),
        Just(Fact::RoomFinished),
        (user(), sid()).prop_map(|(identity, sid)| Fact::UserJoined { identity, sid }),
        (user(), sid(), reason()).prop_map(|(identity, sid, reason)| Fact::UserLeft {
            identity,
            sid,
            reason
        }),
        (agent(), sid()).prop_map(|(identity, sid)| Fact::AgentJoined { identity, sid }),
        (agent(), sid(), reason()).prop_map(|(identity, sid, reason)| Fact::AgentLeft {
            identity,
            sid,
            reason
        }),
    ]
}

#[derive(QueryableByName)]
struct StateRow {
    #[diesel(sql_type = Text)]
    status: SessionStatus,
    #[diesel(sql_type = Text)]
    agent_status: AgentStatus,
    #[diesel(sql_type = Nullable<Text>)]
    end_reason: Option<EndReason>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Array<Nullable<Timestamptz>>)]
    times: Vec<Option<DateTime<Utc>>>,
    #[diesel(sql_type = Nullable<Text>)]
    agent_identity: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    agent_left_reason: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    agent_left_identity: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    join_by: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Bool)]
    is_idle: bool,
    #[diesel(sql_type = Bool)]
    is_resumable: bool,
}

impl StateRow {
    fn into_session(self, room_creation: RoomCreation) -> TrackedSession {
        let time = |name: &str| self.times[TIMES.iter().position(|time| *time == name).unwrap()];
        TrackedSession {
            policy: SessionPolicy {
                room_creation,
                agent: None,
                reconnect_window: TimeDelta::seconds(60),
                max_duration: TimeDelta::hours(1),
                reconcile_every: TimeDelta::seconds(30),
            },
            participant_identity: ParticipantIdentity::try_from(USER.to_owned()).unwrap(),
            created_at: self.now,
            join_by: self.join_by,
            token_expiry: self.now,
            state: State {
                status: self.status,
                agent_status: self.agent_status,
                end_reason: self.end_reason,
                started_at: time("started_at"),
                ended_at: self.ended_at,
                end_by: time("end_by"),
                room_created_at: time("room_created_at"),
                room_missing_since: time("room_missing_since"),
                room_finished_at: time("room_finished_at"),
                room_gone_at: time("room_gone_at"),
                user_joined_at: time("user_joined_at"),
                user_left_at: time("user_left_at"),
                agent_wanted_since: time("agent_wanted_since"),
                last_dispatch_at: time("last_dispatch_at"),
                agent_identity: self.agent_identity,
                agent_left_at: time("agent_left_at"),
                agent_left_reason: self.agent_left_reason,
                agent_left_identity: self.agent_left_identity,
                ending_notified_at: None,
                next_check_at: time("next_check_at"),
            },
        }
    }
}

async fn run(db: &mut AsyncPgConnection, sql: &str) {
    sql_query(sql).execute(db).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
}

async fn write(db: &mut AsyncPgConnection, columns: &Columns) {
    let time = |seconds: i64| format!("now() + interval '{seconds} seconds'");
    let text = |text: Option<&str>| text.map_or("null".to_owned(), |text| format!("'{text}'"));
    let is_over = !SessionStatus::OPEN.contains(&columns.status);
    let mut sql = format!(
        "update sessions set status = '{}', agent_status = '{}', room_creation = '{}', join_by = {},
           end_reason = {}, ended_at = {}, agent_identity = {}, agent_left_identity = {}, agent_left_reason = {}",
        columns.status,
        columns.agent_status,
        columns.room_creation,
        time(columns.join_by),
        if is_over { "'requested'" } else { "null" },
        if is_over { "now() - interval '5 seconds'" } else { "null" },
        text(columns.agent_identity),
        text(columns.agent_left.map(|(identity, _)| identity)),
        text(columns.agent_left.and_then(|(_, reason)| reason)),
    );
    for (name, value) in TIMES.iter().zip(columns.times) {
        write!(sql, ", {name} = {}", value.map_or("null".to_owned(), time)).unwrap();
    }
    run(db, &sql).await;
}

async fn read(db: &mut AsyncPgConnection) -> StateRow {
    let sql = format!(
        "select status, agent_status, end_reason, ended_at, array[{}]::timestamptz[] as times, agent_identity,
           agent_left_reason, agent_left_identity, join_by, now() as now,
           coalesce({}, false) as is_idle, coalesce({RESUMABLE}, false) as is_resumable from sessions",
        TIMES.join(", "),
        claim::idle(),
    );
    sql_query(sql).get_result(db).await.unwrap()
}

async fn database_with_session() -> (Database, AsyncPgConnection, NewSession) {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let new = session(1);
    new.insert(&mut db, None).await.unwrap().unwrap();
    // Random states need not be consistent.
    let constraints = "do $$ declare name text; begin
        for name in select conname from pg_constraint
          where conrelid = 'sessions'::regclass and contype = 'c' loop
          execute format('alter table sessions drop constraint %I', name);
        end loop; end $$";
    run(&mut db, constraints).await;
    (database, db, new)
}

#[derive(QueryableByName, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EventRow {
    #[diesel(sql_type = Text)]
    event: String,
    #[diesel(sql_type = Nullable<Text>)]
    source_id: Option<String>,
}

#[tokio::test]
async fn sql_learns_facts_as_the_domain_does() {
    let (_database, mut db, new) = database_with_session().await;
    let mut runner = TestRunner::deterministic();
    let case = (columns(), fact(), -30_i64..30, any::<bool>());
    for _ in 0..CASES {
        let (columns, fact, second, by_room) = case.new_tree(&mut runner).unwrap().current();
        // Within a transaction, `now()` stands still.
        run(&mut db, "begin").await;
        write(&mut db, &columns).await;
        let before = read(&mut db).await;
        let now = before.now;
        let mut expected = before.into_session(columns.room_creation);
        let at = DateTime::from_timestamp(now.timestamp() + second, 0).unwrap();
        let concerned = fact.concerns(&expected.participant_identity);
        let events = if concerned { expected.state.learn(&fact, at, now) } else { None };

        let subject = if by_room {
            Subject::Room(&new.room_name)
        } else {
            Subject::Session { organization: ORGANIZATION, id: new.id, end_user: None }
        };
        let learned = record(&mut db, subject, &fact, at).await.unwrap();
        let case = format!("{fact:?} at {second} on {columns:?}");
        assert_eq!(learned, events.is_some(), "{case}");
        let found = read(&mut db).await.into_session(columns.room_creation);
        assert_eq!(found.state, expected.state, "{case}");
        let mut expected: Vec<_> = events
            .into_iter()
            .flatten()
            .map(|event| EventRow { event: event.event.to_string(), source_id: event.source_id() })
            .collect();
        let mut found: Vec<EventRow> =
            sql_query("select event, source_id from session_events").load(&mut db).await.unwrap();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{case}");
        run(&mut db, "rollback").await;
    }
}

#[tokio::test]
async fn sql_finds_idle_and_resumable_sessions_as_the_domain_does() {
    let (_database, mut db, _) = database_with_session().await;
    let mut runner = TestRunner::deterministic();
    let (mut idle, mut resumable) = (0, 0);
    for _ in 0..CASES {
        let columns = columns().new_tree(&mut runner).unwrap().current();
        run(&mut db, "begin").await;
        write(&mut db, &columns).await;
        let row = read(&mut db).await;
        let (now, is_idle, is_resumable) = (row.now, row.is_idle, row.is_resumable);
        let session = row.into_session(columns.room_creation);
        assert_eq!(is_idle, session.is_idle(now), "idle: {columns:?}");
        assert_eq!(is_resumable, session.is_resumable(now), "resumable: {columns:?}");
        idle += usize::from(is_idle);
        resumable += usize::from(is_resumable);
        run(&mut db, "rollback").await;
    }
    assert!(idle > 0 && resumable > 10, "{idle} idle and {resumable} resumable of {CASES}");
}
