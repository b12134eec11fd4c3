//! Starts of sessions, their columns, and the availability of templates.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bool, Integer, Text, Timestamptz};
use diesel::{IntoSql, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::lifecycle::Fact;
use greenroom_domain::template::TokenTtl;
use greenroom_domain::{
    EnabledPanels, OrganizationId, ParticipantIdentity, ReconcileInterval, RoomName, SessionId,
    SessionStatus, SessionTemplateId, TemplateName,
};
use greenroom_store::{
    Constraint, NewSession, Session, SessionEvent, SessionKey, StartDefaults, StartKey, StoreError,
    Subject, TemplateAvailability, TemplateSettings, connect, organization, session, template,
};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

pub const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(1));
const TEMPLATE: SessionTemplateId = SessionTemplateId(Uuid::from_u128(2));

pub async fn template(db: &mut AsyncPgConnection, panels: Option<&[&str]>) {
    let mut settings = TemplateSettings::new(TemplateName::try_from("T".to_owned()).unwrap());
    let owned =
        |panels: &[&str]| panels.iter().map(|panel| (*panel).to_owned()).collect::<Vec<_>>();
    settings.enabled_panels = panels.map(|panels| EnabledPanels::try_from(owned(panels)).unwrap());
    organization::ensure(db, ORGANIZATION).await.unwrap();
    let inserted = template::insert(db, ORGANIZATION, TEMPLATE, settings.clone()).await.unwrap();
    assert_eq!(inserted.settings, settings);
}

/// Reads a session that can be decoded.
pub async fn find(db: &mut AsyncPgConnection, id: SessionId) -> Option<Session> {
    let key = SessionKey { organization_id: ORGANIZATION, id };
    let found = session::find_many(db, &[key]).await.unwrap().pop();
    found.map(|(_, session)| session.unwrap())
}

/// PostgreSQL's current time.
pub async fn now(db: &mut AsyncPgConnection) -> DateTime<Utc> {
    diesel::select(diesel::dsl::now.into_sql::<Timestamptz>()).get_result(db).await.unwrap()
}

/// Records a fact by a process that holds no buckets. Returns whether a session learned it.
pub async fn record(
    db: &mut AsyncPgConnection,
    subject: Subject<'_>,
    fact: &Fact,
    at: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let recorded = greenroom_store::record(db, subject, fact, at, None).await?;
    assert!(recorded.is_none_or(|recorded| !recorded.is_held));
    Ok(recorded.is_some())
}

/// The recorded events of a session.
pub async fn timeline(db: &mut AsyncPgConnection, id: SessionId) -> Vec<SessionEvent> {
    let events = SessionEvent::list(db, ORGANIZATION, id).await.unwrap();
    events.into_iter().map(Result::unwrap).collect()
}

/// A room name that differs from those of other numbers.
pub fn room(number: u32) -> RoomName {
    RoomName::new(DateTime::from_timestamp_millis(1_795_357_822_123).unwrap(), number)
}

pub fn session(number: u128) -> NewSession {
    NewSession {
        organization_id: ORGANIZATION,
        id: SessionId(Uuid::from_u128(number)),
        session_template_id: TEMPLATE,
        user_id: None,
        metadata: None,
        room_name: room(7),
        participant_identity: ParticipantIdentity::guest(1),
        participant_name: None,
        participant_attributes: None,
        agent_name: None,
        is_first_check_remembered: false,
        key: StartKey::None,
        defaults: DEFAULTS,
    }
}

pub const DEFAULTS: StartDefaults = StartDefaults {
    token_ttl: TokenTtl::constant::<3600>(),
    first_check_within: ReconcileInterval::constant::<30>(),
    max_active_sessions: None,
};

#[derive(QueryableByName)]
struct PanelsColumn {
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Integer)]
    length: i32,
    #[diesel(sql_type = Bool)]
    has_notes: bool,
}

#[tokio::test]
async fn session_copies_panels_of_its_template_as_array() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, Some(&["chat", "notes"])).await;
    let started = session(1).insert(&mut db, None).await.unwrap().unwrap();
    assert_eq!(started.setup.session.enabled_panels.unwrap().as_slice(), ["chat", "notes"]);
    let column: PanelsColumn = sql_query(
        "select pg_typeof(enabled_panels)::text as kind, cardinality(enabled_panels) as length,
                enabled_panels @> '{notes}' as has_notes from sessions",
    )
    .get_result(&mut db)
    .await
    .unwrap();
    assert_eq!((column.kind.as_str(), column.length, column.has_notes), ("text[]", 2, true));
    sql_query("update sessions set enabled_panels = '{a,null}'")
        .execute(&mut db)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn null_panels_differ_from_empty_panels() {
    for panels in [None, Some(&[][..])] {
        let database = Database::fresh().await.unwrap();
        let mut db = connect(database.url()).await.unwrap();
        template(&mut db, panels).await;
        let started = session(1).insert(&mut db, None).await.unwrap().unwrap();
        assert_eq!(
            started.setup.session.enabled_panels.map(|panels| panels.as_slice().len()),
            panels.map(<[_]>::len)
        );
    }
}

#[tokio::test]
async fn taken_room_name_is_a_conflict() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    session(1).insert(&mut db, None).await.unwrap().unwrap();
    let refused = session(2).insert(&mut db, None).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(Constraint::RoomName)), "{refused:?}");
}

#[tokio::test]
async fn failed_start_keeps_session_whose_room_was_opened() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let started = session(1).insert(&mut db, None).await.unwrap().unwrap();
    let id = started.setup.session.id;
    let subject = Subject::Session { organization: ORGANIZATION, id, end_user: None };
    let (opened, at) = (Fact::RoomOpened { sid: "RM_1".to_owned() }, now(&mut db).await);
    assert!(record(&mut db, subject, &opened, at).await.unwrap());
    assert!(!record(&mut db, subject, &Fact::RoomNotOpened, at).await.unwrap());
    let found = find(&mut db, id).await.unwrap();
    assert_eq!(found.status, SessionStatus::Pending);
}

#[tokio::test]
async fn only_current_unarchived_template_of_organization_is_startable() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    assert_eq!(
        template::availability(&mut db, ORGANIZATION, TEMPLATE).await.unwrap(),
        TemplateAvailability::Absent
    );
    template(&mut db, None).await;
    assert_eq!(
        template::availability(&mut db, ORGANIZATION, TEMPLATE).await.unwrap(),
        TemplateAvailability::Startable
    );
    let other = OrganizationId(Uuid::from_u128(9));
    assert_eq!(
        template::availability(&mut db, other, TEMPLATE).await.unwrap(),
        TemplateAvailability::Foreign
    );
    sql_query("update session_templates set archived_at = now()").execute(&mut db).await.unwrap();
    assert_eq!(
        template::availability(&mut db, ORGANIZATION, TEMPLATE).await.unwrap(),
        TemplateAvailability::Archived
    );
    assert!(session(1).insert(&mut db, None).await.unwrap().is_none());
    sql_query("update session_templates set superseded_at = now()").execute(&mut db).await.unwrap();
    assert_eq!(
        template::availability(&mut db, ORGANIZATION, TEMPLATE).await.unwrap(),
        TemplateAvailability::Absent
    );
}
