//! Random sessions: drawn as columns, written to PostgreSQL in one statement, and read back.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::{SessionPolicy, State, TrackedSession};
use greenroom_domain::{
    AgentStatus, EndReason, ParticipantIdentity, RoomCreation, RoomName, SessionId, SessionStatus,
};
use greenroom_store::idempotency::{HAS_TIME_LEFT, resumable};
use greenroom_store::{NewSession, connect, overdue};
use greenroom_testkit::pg::Database;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::session::{room, session, template};

pub const USER: &str = "guest-00000001";

/// The columns that contain a text. `status` and the columns below are drawn.
const TEXTS: [&str; 7] = [
    "status",
    "agent_status",
    "room_creation",
    "end_reason",
    "agent_identity",
    "agent_left_identity",
    "agent_left_reason",
];

/// The columns that contain a time.
const TIMES: [&str; 16] = [
    "created_at",
    "join_by",
    "started_at",
    "ended_at",
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
    "ending_notified_at",
    "next_check_at",
];

/// Seconds between `now()` and a drawn time: few, so that two times are often equal, with the
/// limits of the rules and their neighbors.
const SECONDS: [i64; 8] = [-31, -30, -1, 0, 1, 29, 30, 31];

/// Seconds between `now()` and the creation: the limit of the lifetime of an idempotency key.
const CREATED: [i64; 4] = [-86_401, -86_400, -86_399, 0];

/// Seconds between the current second and the second in which LiveKit reports a fact.
pub const REPORTED: [i64; 4] = [-30, -1, 0, 1];

/// The value of a column.
#[derive(Debug, Clone, Copy)]
pub enum Cell {
    Null,
    Text(&'static str),
    /// The number of seconds after `now()`.
    Now(i64),
    /// The time that is recorded for a fact of this second, see [`recorded`].
    Reported(i64),
}

impl Cell {
    fn to_json(self, now: DateTime<Utc>) -> Value {
        let time = |at: DateTime<Utc>| json!(at.to_rfc3339_opts(SecondsFormat::Micros, true));
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => json!(text),
            Self::Now(seconds) => time(now + TimeDelta::seconds(seconds)),
            Self::Reported(second) => time(recorded(reported_at(second, now), now)),
        }
    }
}

/// LiveKit's time of a fact: this number of seconds after the current second.
pub fn reported_at(second: i64, now: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(now.timestamp() + second, 0).unwrap()
}

/// The time that is recorded for a fact that LiveKit reported at `at`.
pub fn recorded(at: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    (at + TimeDelta::milliseconds(999)).min(now)
}

/// A session from which others differ in one or two columns, so that one condition of a rule often
/// decides alone.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    pub name: &'static str,
    cells: &'static [(&'static str, Cell)],
    /// The columns by which a session near this one may be resumable or not.
    pub resumable_by: &'static [&'static str],
}

pub const BASES: [Base; 4] = [
    Base {
        name: "before the join",
        cells: &[
            ("agent_status", Cell::Text("ready")),
            ("agent_identity", Cell::Text("agent-AJ_1")),
            ("room_created_at", Cell::Now(-30)),
        ],
        resumable_by: &["status", "created_at", "join_by"],
    },
    Base {
        name: "without a room before the join",
        cells: &[("agent_status", Cell::Text("waiting")), ("room_creation", Cell::Text("on_join"))],
        resumable_by: &["join_by"],
    },
    Base {
        name: "in a call",
        cells: &[
            ("status", Cell::Text("active")),
            ("agent_status", Cell::Text("ready")),
            ("agent_identity", Cell::Text("agent-AJ_1")),
            ("room_created_at", Cell::Now(-30)),
            ("user_joined_at", Cell::Now(-30)),
            ("end_by", Cell::Now(31)),
        ],
        resumable_by: &["user_left_at"],
    },
    Base {
        name: "after the user left",
        cells: &[
            ("status", Cell::Text("active")),
            ("room_created_at", Cell::Now(-30)),
            ("user_joined_at", Cell::Now(-30)),
            ("user_left_at", Cell::Now(-1)),
            ("end_by", Cell::Now(1)),
        ],
        resumable_by: &["status", "created_at", "end_by", "user_joined_at", "user_left_at"],
    },
];

/// The cells of every base, unless it sets others.
fn default_cell(column: &str) -> Cell {
    match column {
        "status" => Cell::Text("pending"),
        "agent_status" => Cell::Text("none"),
        "room_creation" => Cell::Text("on_start"),
        "created_at" => Cell::Now(-86_399),
        "join_by" => Cell::Now(1),
        "next_check_at" => Cell::Now(0),
        _ => Cell::Null,
    }
}

/// A drawn session. `near` is the base from which it differs in `changed`, or `None` if all columns
/// are random.
#[derive(Debug, Clone)]
pub struct RandomSession {
    pub cells: BTreeMap<&'static str, Cell>,
    pub near: Option<&'static str>,
    pub changed: Vec<&'static str>,
}

/// Draws all columns.
pub fn random_session() -> impl Strategy<Value = RandomSession> {
    let all: Vec<_> = TEXTS.iter().chain(&TIMES).map(|&column| change(column)).collect();
    all.prop_map(|cells| RandomSession {
        cells: cells.into_iter().collect(),
        near: None,
        changed: Vec::new(),
    })
}

/// Draws a base and one or two of its columns.
pub fn session_near_base() -> impl Strategy<Value = RandomSession> {
    select(&BASES[..]).prop_flat_map(|base| {
        let columns = base.resumable_by;
        let drawn = prop::collection::vec(select(columns).prop_flat_map(change), 1..=2);
        drawn.prop_map(move |drawn| {
            let defaults = TEXTS.iter().chain(&TIMES).map(|column| (*column, default_cell(column)));
            let mut cells: BTreeMap<_, _> = defaults.chain(base.cells.iter().copied()).collect();
            let changed = drawn.iter().map(|(column, _)| *column).collect();
            cells.extend(drawn);
            RandomSession { cells, near: Some(base.name), changed }
        })
    })
}

fn change(column: &'static str) -> impl Strategy<Value = (&'static str, Cell)> {
    cell(column).prop_map(move |cell| (column, cell))
}

fn cell(column: &str) -> BoxedStrategy<Cell> {
    let exact = || select(&SECONDS[..]).prop_map(Cell::Now);
    let time = || prop_oneof![exact(), select(&REPORTED[..]).prop_map(Cell::Reported)];
    let text = |texts: Vec<&'static str>| select(texts).prop_map(Cell::Text).boxed();
    let nullable = |texts: &'static [&'static str]| {
        prop_oneof![Just(Cell::Null), select(texts).prop_map(Cell::Text)].boxed()
    };
    match column {
        "status" => {
            let open = select(&SessionStatus::OPEN[..]);
            let status = prop_oneof![3 => open, 1 => select(SessionStatus::ALL)];
            status.prop_map(|status| Cell::Text(status.as_str())).boxed()
        }
        "agent_status" => text(AgentStatus::ALL.iter().map(|status| status.as_str()).collect()),
        "room_creation" => text(RoomCreation::ALL.iter().map(|value| value.as_str()).collect()),
        "end_reason" => nullable(&["user_left", "room_closed"]),
        "agent_identity" | "agent_left_identity" => nullable(&["agent-AJ_1", "agent-AJ_2"]),
        "agent_left_reason" => nullable(&["CLIENT_INITIATED", "SIGNAL_CLOSE"]),
        "created_at" => select(&CREATED[..]).prop_map(Cell::Now).boxed(),
        "join_by" => exact().boxed(),
        "end_by" => prop_oneof![1 => Just(Cell::Null), 4 => exact()].boxed(),
        "room_missing_since" | "room_finished_at" => {
            prop_oneof![2 => Just(Cell::Null), 1 => time()].boxed()
        }
        _ => prop_oneof![1 => Just(Cell::Null), 2 => time()].boxed(),
    }
}

/// Returns a database with one session, of which [`write`] inserts changed copies.
pub async fn database_with_session() -> (Database, AsyncPgConnection, NewSession) {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let new = session(u128::MAX);
    new.insert(&mut db, None).await.unwrap().unwrap();
    // Random states need not be consistent.
    let constraints = "do $$ declare name text; begin
        for name in select conname from pg_constraint
          where conrelid = 'sessions'::regclass and contype = 'c' loop
          execute format('alter table sessions drop constraint %I', name);
        end loop; end $$";
    sql_query(constraints).execute(&mut db).await.unwrap();
    (database, db, new)
}

/// The id and the room of the session that [`write`] inserts at this position.
pub fn key(index: usize) -> (SessionId, RoomName) {
    let number = u32::try_from(index).unwrap() + 1_000;
    (session(number.into()).id, room(number))
}

/// Replaces `original` by a copy for each session, with the columns of that session.
pub async fn write(
    db: &mut AsyncPgConnection,
    original: &NewSession,
    sessions: impl Iterator<Item = &RandomSession>,
    now: DateTime<Utc>,
) {
    let row = |(index, session): (usize, &RandomSession)| {
        let (id, room) = key(index);
        let cells = session.cells.iter().map(|(column, cell)| (*column, cell.to_json(now)));
        let keys = [("id", json!(id.0)), ("room_name", json!(room.as_str()))];
        Value::Object(cells.chain(keys).map(|(column, cell)| (column.to_owned(), cell)).collect())
    };
    let rows: Vec<Value> = sessions.enumerate().map(row).collect();
    let insert = "insert into sessions
        select filled.* from sessions original
        cross join jsonb_array_elements($1) as drawn (cells)
        cross join jsonb_populate_record(original, drawn.cells) as filled";
    sql_query(insert).bind::<Jsonb, _>(Value::Array(rows)).execute(db).await.unwrap();
    let delete = sql_query("delete from sessions where id = $1").bind::<Uuid, _>(original.id);
    assert_eq!(delete.execute(db).await.unwrap(), 1);
}

/// A session as PostgreSQL has it.
#[derive(QueryableByName)]
pub struct SessionRow {
    #[diesel(sql_type = Array<Nullable<Text>>)]
    texts: Vec<Option<String>>,
    #[diesel(sql_type = Array<Nullable<Timestamptz>>)]
    times: Vec<Option<DateTime<Utc>>>,
    #[diesel(sql_type = BigInt)]
    pub revision: i64,
    /// In the order of [`SessionRow::conditions`].
    #[diesel(sql_type = Array<Bool>)]
    conditions: Vec<bool>,
    #[diesel(sql_type = Uuid)]
    id: SessionId,
}

/// Reads all sessions, in the order of [`write`].
pub async fn read(db: &mut AsyncPgConnection) -> Vec<SessionRow> {
    let sql = format!(
        "select array[{}] as texts, array[{}] as times, revision,
           array[coalesce({}, false), coalesce({}, false), {HAS_TIME_LEFT}]
             as conditions, id
         from sessions order by id",
        TEXTS.join(", "),
        TIMES.join(", "),
        resumable(),
        overdue::unopened_start(),
    );
    sql_query(sql).load(db).await.unwrap()
}

impl SessionRow {
    /// Whether PostgreSQL found the session resumable, overdue for its room, and with time left.
    pub fn conditions(&self) -> [bool; 3] {
        self.conditions.as_slice().try_into().unwrap()
    }

    pub fn to_session(&self) -> TrackedSession {
        let position =
            |columns: &[&str], name: &str| columns.iter().position(|it| *it == name).unwrap();
        let time = |name: &str| self.times[position(&TIMES, name)];
        let text = |name: &str| self.texts[position(&TEXTS, name)].clone();
        let created_at = time("created_at").unwrap();
        TrackedSession {
            id: self.id,
            policy: SessionPolicy {
                agent: None,
                reconnect_window: TimeDelta::seconds(60),
                max_duration: TimeDelta::hours(1),
                reconcile_every: TimeDelta::seconds(30),
            },
            participant_identity: ParticipantIdentity::try_from(USER.to_owned()).unwrap(),
            created_at,
            join_by: time("join_by").unwrap(),
            token_expiry: created_at,
            state: State {
                status: text("status").unwrap().parse().unwrap(),
                agent_status: text("agent_status").unwrap().parse().unwrap(),
                room_creation: text("room_creation").unwrap().parse().unwrap(),
                end_reason: text("end_reason").map(|reason| reason.parse::<EndReason>().unwrap()),
                started_at: time("started_at"),
                ended_at: time("ended_at"),
                end_by: time("end_by"),
                room_created_at: time("room_created_at"),
                room_missing_since: time("room_missing_since"),
                room_finished_at: time("room_finished_at"),
                room_gone_at: time("room_gone_at"),
                user_joined_at: time("user_joined_at"),
                user_left_at: time("user_left_at"),
                agent_wanted_since: time("agent_wanted_since"),
                last_dispatch_at: time("last_dispatch_at"),
                agent_identity: text("agent_identity"),
                agent_left_at: time("agent_left_at"),
                agent_left_reason: text("agent_left_reason"),
                agent_left_identity: text("agent_left_identity"),
                ending_notified_at: time("ending_notified_at"),
                next_check_at: time("next_check_at"),
            },
        }
    }
}
