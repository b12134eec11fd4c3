//! Rules that exist in the domain and in SQL, compared on random sessions.

mod random_session;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use diesel::sql_types::{Jsonb, Nullable, Text, Uuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::SessionId;
use greenroom_domain::lifecycle::{Event, Fact, State, TimelineEvent, TrackedSession};
use greenroom_store::{OpenedRoom, SessionKey, Subject, record_rooms_opened};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use self::random_session::{
    BASES, REPORTED, RandomSession, SessionRow, USER, database_with_session, key, random_session,
    read, recorded, reported_at, session_near_base, write,
};
use crate::session::{ORGANIZATION, now, record};

/// Number of random sessions that learn a fact.
const FACTS: usize = 5_000;

/// Number of random sessions for the two conditions.
const SESSIONS: usize = 8_000;

/// Minimum number of cases of each branch. The random numbers are the same in each run.
const MIN_CASES: usize = 5;

/// A fact that a session learns. LiveKit reports it `second` seconds after the current one.
#[derive(Debug, Clone)]
struct Report {
    session: RandomSession,
    fact: Fact,
    second: i64,
    by_room: bool,
}

fn report() -> impl Strategy<Value = Report> {
    (random_session(), fact(), select(&REPORTED[..]), any::<bool>())
        .prop_map(|(session, fact, second, by_room)| Report { session, fact, second, by_room })
}

fn fact() -> impl Strategy<Value = Fact> {
    let sid = || select(&["S_1", "S_2"][..]).prop_map(str::to_owned);
    let agent = || select(&["agent-AJ_1", "agent-AJ_2"][..]).prop_map(str::to_owned);
    let user = || prop_oneof![3 => Just(USER.to_owned()), 1 => Just("stranger".to_owned())];
    let reason = || prop::option::of(Just("CLIENT_INITIATED".to_owned()));
    prop_oneof![
        sid().prop_map(|sid| Fact::RoomOpened { sid }),
        sid().prop_map(|sid| Fact::RoomOpenedLate { sid }),
        Just(Fact::RoomNotOpened),
        Just(Fact::RoomDeferred),
        Just(Fact::EndRequested),
        Just(Fact::MaxDurationReached),
        Just(Fact::EndAnnounced),
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

/// Draws the same values in each run.
fn draw<T>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// How often each branch occurred.
#[derive(Debug)]
struct Branches<B>(BTreeMap<B, usize>);

impl<B: Ord + Debug> Branches<B> {
    fn count(branches: impl Iterator<Item = B>) -> Self {
        let mut counts = BTreeMap::new();
        for branch in branches {
            *counts.entry(branch).or_default() += 1;
        }
        Self(counts)
    }

    fn assert_covered(&self, branches: impl IntoIterator<Item = B>) {
        let count = |branch: &B| self.0.get(branch).copied().unwrap_or_default();
        let rare: Vec<_> =
            branches.into_iter().filter(|branch| count(branch) < MIN_CASES).collect();
        assert!(rare.is_empty(), "less than {MIN_CASES} cases of {rare:#?} in {self:#?}");
    }
}

/// An event in the timeline, as PostgreSQL has it.
#[derive(QueryableByName, Debug, PartialEq)]
struct EventRow {
    #[diesel(sql_type = Text)]
    event: TimelineEvent,
    #[diesel(sql_type = Nullable<Text>)]
    source_id: Option<String>,
    #[diesel(sql_type = Jsonb)]
    detail: Value,
    #[diesel(sql_type = Uuid)]
    session_id: SessionId,
}

fn expected_detail(fact: &Fact, event: TimelineEvent, at: DateTime<Utc>) -> Value {
    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    match (fact, event) {
        (Fact::RoomStarted { .. }, _) => json!({"livekit_at": at}),
        (Fact::UserJoined { identity, .. } | Fact::AgentJoined { identity, .. }, _) => {
            json!({"livekit_at": at, "identity": identity})
        }
        (Fact::UserLeft { identity, reason, .. } | Fact::AgentLeft { identity, reason, .. }, _) => {
            json!({"livekit_at": at, "identity": identity, "reason": reason})
        }
        (Fact::MaxDurationReached, _) => json!({"end_reason": "max_duration"}),
        (_, TimelineEvent::Ended) => json!({"end_reason": "requested"}),
        (_, TimelineEvent::Failed) => json!({"end_reason": "livekit_error"}),
        _ => json!({}),
    }
}

/// Records each fact for its session, and the opened rooms that are not found by their names in one
/// statement. Returns whether the session learned it.
async fn record_all(
    db: &mut AsyncPgConnection,
    reports: &[Report],
    now: DateTime<Utc>,
) -> Vec<bool> {
    let (mut learned, mut rooms) = (Vec::new(), Vec::new());
    for (index, Report { fact, second, by_room, .. }) in reports.iter().enumerate() {
        let (id, room) = key(index);
        if let (Fact::RoomOpened { sid }, false) = (fact, by_room) {
            let key = SessionKey { organization_id: ORGANIZATION, id };
            rooms.push((index, OpenedRoom { key, sid: sid.clone(), holder: None }));
            learned.push(false);
            continue;
        }
        let subject = if *by_room {
            Subject::Room(&room)
        } else {
            Subject::Session { organization: ORGANIZATION, id, end_user: None }
        };
        learned.push(record(db, subject, fact, reported_at(*second, now)).await.unwrap());
    }
    let opened: Vec<_> = rooms.iter().map(|(_, room)| room).collect();
    let open = record_rooms_opened(db, &opened, Duration::ZERO).await.unwrap();
    for (index, room) in &rooms {
        learned[*index] = open.contains(&room.key);
    }
    learned
}

async fn timelines(db: &mut AsyncPgConnection) -> BTreeMap<u128, Vec<EventRow>> {
    let select = "select event, source_id, detail, session_id from session_events order by seq";
    let mut timelines: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in sql_query(select).load::<EventRow>(db).await.unwrap() {
        timelines.entry(event.session_id.0.as_u128()).or_default().push(event);
    }
    timelines
}

#[tokio::test]
async fn sql_learns_facts_as_the_domain_does() {
    let (_database, mut db, original) = database_with_session().await;
    let reports = draw(report(), FACTS);
    // Within a transaction, `now()` stands still.
    sql_query("begin").execute(&mut db).await.unwrap();
    let now = now(&mut db).await;
    write(&mut db, &original, reports.iter().map(|report| &report.session), now).await;
    let before: Vec<_> = read(&mut db).await.iter().map(SessionRow::to_session).collect();
    let learned = record_all(&mut db, &reports, now).await;
    let after = read(&mut db).await;
    let mut timelines = timelines(&mut db).await;
    assert_eq!((before.len(), after.len()), (FACTS, FACTS));

    for (index, report) in reports.iter().enumerate() {
        let (id, _) = key(index);
        let at = reported_at(report.second, now);
        let mut expected = before[index].clone();
        let concerns = report.fact.concerns(&expected.participant_identity);
        let events = concerns.then(|| expected.state.learn(&report.fact, at, now)).flatten();
        assert_eq!(learned[index], events.is_some(), "{report:#?}");
        assert_eq!(after[index].to_session(), expected, "{report:#?}");
        assert_eq!(after[index].revision, i64::from(learned[index]), "{report:#?}");
        let row = |event: Event| EventRow {
            event: event.event,
            source_id: event.source_id(),
            detail: expected_detail(&report.fact, event.event, at),
            session_id: id,
        };
        let expected: Vec<_> = events.into_iter().flatten().map(row).collect();
        let found = timelines.remove(&id.0.as_u128()).unwrap_or_default();
        assert_eq!(found, expected, "{report:#?}");
    }
    assert_facts_cover_all_outcomes(&reports, &before, &learned);
    assert_facts_cover_ties(&reports, &before, now);
}

/// The name of a fact's variant.
fn name(fact: &Fact) -> String {
    format!("{fact:?}").split(' ').next().unwrap_or_default().to_owned()
}

fn assert_facts_cover_all_outcomes(
    reports: &[Report],
    before: &[TrackedSession],
    learned: &[bool],
) {
    let outcomes = reports.iter().zip(before).zip(learned);
    let branches =
        Branches::count(outcomes.map(|((report, before), learned)| {
            (name(&report.fact), before.state.is_over(), *learned)
        }));
    let (open, over, learned, refused) = (false, true, true, false);
    for (facts, outcomes) in [
        (
            &["RoomOpenedLate", "RoomStarted", "RoomFinished", "AgentJoined", "AgentLeft"][..],
            &[(open, learned), (over, learned)][..],
        ),
        (&["UserJoined", "UserLeft"], &[(open, learned), (over, learned), (open, refused)]),
        (&["RoomOpened", "EndRequested"], &[(open, learned), (over, refused)]),
        (&["EndAnnounced"], &[(open, learned), (over, refused)]),
        (
            &["MaxDurationReached", "RoomNotOpened", "RoomDeferred"],
            &[(open, learned), (open, refused), (over, refused)],
        ),
    ] {
        for fact in facts {
            let expected =
                outcomes.iter().map(|(over, learned)| ((*fact).to_owned(), *over, *learned));
            branches.assert_covered(expected);
        }
    }
}

/// The recorded time with which the time of the fact competes. `None` if there is no such rule.
fn competing_time(fact: &Fact, state: &State) -> Option<DateTime<Utc>> {
    let is_last_agent = |identity: &str| state.agent_left_identity.as_deref() == Some(identity);
    match fact {
        Fact::RoomFinished => state.room_finished_at,
        Fact::UserJoined { .. } => state.user_joined_at,
        Fact::UserLeft { .. } => state.user_left_at,
        Fact::AgentJoined { identity, .. } if is_last_agent(identity) => state.agent_left_at,
        Fact::AgentLeft { identity, .. }
            if !is_last_agent(identity) || state.agent_left_reason.is_some() =>
        {
            state.agent_left_at
        }
        _ => None,
    }
}

fn assert_facts_cover_ties(reports: &[Report], before: &[TrackedSession], now: DateTime<Utc>) {
    let orders = reports.iter().zip(before).filter_map(|(report, before)| {
        let at = recorded(reported_at(report.second, now), now);
        let order = competing_time(&report.fact, &before.state)?.cmp(&at);
        Some((name(&report.fact), order))
    });
    let branches = Branches::count(orders);
    for fact in ["RoomFinished", "UserJoined", "UserLeft", "AgentJoined", "AgentLeft"] {
        let orders = [Ordering::Less, Ordering::Equal, Ordering::Greater];
        branches.assert_covered(orders.map(|order| (fact.to_owned(), order)));
    }
}

#[tokio::test]
async fn sql_finds_resumable_and_overdue_sessions_as_the_domain_does() {
    let (_database, mut db, original) = database_with_session().await;
    let sessions = prop_oneof![1 => random_session(), 3 => session_near_base()];
    let sessions = draw(sessions, SESSIONS);
    sql_query("begin").execute(&mut db).await.unwrap();
    let now = now(&mut db).await;
    write(&mut db, &original, sessions.iter(), now).await;
    let rows = read(&mut db).await;
    assert_eq!(rows.len(), SESSIONS);
    let (mut branches, mut overdue) = (Vec::new(), Vec::new());
    for (session, row) in sessions.iter().zip(&rows) {
        let tracked = row.to_session();
        let [is_resumable, is_start_overdue, has_time_left] = row.conditions();
        assert_eq!(is_resumable, tracked.is_resumable(now), "resumable: {session:#?}");
        let expected = tracked.state.is_start_overdue(tracked.created_at, now);
        assert_eq!(is_start_overdue, expected, "overdue: {session:#?}");
        assert_eq!(has_time_left, tracked.has_time_left(now), "time left: {session:#?}");
        overdue.push((tracked.state.status.as_str(), is_start_overdue));
        if let (Some(base), [column]) = (session.near, &session.changed[..]) {
            branches.push((base, *column, is_resumable));
        }
    }
    let overdue = Branches::count(overdue.into_iter());
    overdue.assert_covered([("pending", true), ("pending", false)]);
    let branches = Branches::count(branches.into_iter());
    for base in BASES {
        for column in base.resumable_by {
            branches.assert_covered([true, false].map(|is_met| (base.name, *column, is_met)));
        }
    }
}
