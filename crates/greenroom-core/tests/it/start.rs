//! The state of a session after a start, depending on LiveKit's response.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_core::domain::{
    AgentName, AgentStatus, EnabledPanels, EndReason, ParticipantAttributes, ParticipantName,
    RoomCreation, SessionCount, SessionStatus, SessionTemplateId, TemplateName, UserId,
};
use greenroom_core::{
    Caller, Error, Greenroom, LiveKitError, MemoryRooms, OnLiveKitDown, PageRequest, SessionFilter,
    SessionLimit, StartRequest, StartedSession,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use tokio::task::JoinHandle;

use crate::{config, on_join_template, organization, service, template};

#[tokio::test]
async fn start_opens_one_room_with_settings_of_template() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let mut settings = template("T");
    settings.agent_name = Some(AgentName::try_from("greeter".to_owned()).unwrap());
    let id = greenroom.create_template(&caller, settings).await.unwrap().id;
    let user = UserId::try_from("ann".to_owned()).unwrap();
    let mut request = StartRequest::new(id);
    request.user_id = Some(user);
    let started = greenroom.start(&caller, request).await.unwrap();

    assert_eq!(rooms.count(), 1);
    let room = rooms.get(started.session.room_name.valid().unwrap()).unwrap();
    assert_eq!((room.dispatch.agent_name(), room.departure_timeout), ("greeter", 60));
    let session = greenroom.session(&caller, started.session.id).await.unwrap().unwrap();
    assert_eq!(
        (session.status, session.agent_status),
        (SessionStatus::Pending.into(), AgentStatus::Dispatched.into())
    );
    assert!(!format!("{started:?}").contains(&started.access_token), "Debug shows the token");
}

#[tokio::test]
async fn session_fails_if_livekit_is_down() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    rooms.set_down(true);
    let refused = greenroom.start(&caller, StartRequest::new(id)).await.unwrap_err();
    assert!(matches!(refused, Error::LiveKit(LiveKitError::Unavailable(_))), "{refused:?}");
    let sessions = greenroom
        .sessions(&caller, SessionFilter::default(), PageRequest::default())
        .await
        .unwrap();
    let found: Vec<_> =
        sessions.items.iter().map(|session| (session.status, session.end_reason)).collect();
    assert_eq!(found, [(SessionStatus::Failed.into(), Some(EndReason::LiveKitError.into()))]);
}

#[tokio::test]
async fn session_that_ends_before_its_room_opens_is_not_returned() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let id = greenroom.create_template(&caller, template("T")).await.unwrap().id;
    // The keeper fails a session after one minute, just before a replay opens the session's room.
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(
        "create function give_up() returns trigger language plpgsql as
           'begin update sessions set status = ''failed'', end_reason = ''livekit_error'', ended_at = now()
                  where id = new.id; return null; end';
         create trigger give_up after insert on sessions for each row execute function give_up()",
    )
    .await
    .unwrap();
    let refused = greenroom.start(&caller, StartRequest::new(id)).await.unwrap_err();
    let Error::SessionOver(id) = refused else { panic!("{refused:?}") };
    // The keeper must delete the room, and the timeline shows it.
    let timeline = greenroom.timeline(&caller, id).await.unwrap().unwrap();
    let events: Vec<_> = timeline.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["created", "room_created"]);
    db.batch_execute(&format!(
        "do $$ begin
           assert (select next_check_at <= now() from sessions where id = '{id}'), 'not due';
         end $$"
    ))
    .await
    .unwrap();
}

#[tokio::test]
async fn on_join_start_succeeds_without_livekit() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    rooms.set_down(true);
    let greenroom = service(&database, &rooms).build().unwrap();
    let caller = Caller::backend(organization());
    let id = on_join_template(&greenroom, &caller).await;
    let started = greenroom.start(&caller, StartRequest::new(id)).await.unwrap();
    assert_eq!(started.session.status, SessionStatus::Pending);
    assert!(rooms.get(started.session.room_name.valid().unwrap()).is_none());
}

#[tokio::test]
async fn room_is_not_deferred_if_token_with_dispatch_is_too_long() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let mut config = config(&database);
    config.on_livekit_down = OnLiveKitDown::TokenOnly;
    let greenroom = Greenroom::builder(config).rooms(rooms.clone()).build().unwrap();
    let caller = Caller::backend(organization());
    let mut on_start = template("OnStart");
    on_start.agent_name = Some(AgentName::try_from("\"".repeat(64)).unwrap());
    // The join token contains the panels, and each quotation mark with its escapes.
    let panels: Vec<_> = (0..32).map(|number| format!("{number:032}")).collect();
    on_start.enabled_panels = Some(EnabledPanels::try_from(panels).unwrap());
    let mut on_join = on_start.clone();
    on_join.name = TemplateName::try_from("OnJoin".to_owned()).unwrap();
    on_join.room_creation = RoomCreation::OnJoin.into();
    let on_start = greenroom.create_template(&caller, on_start).await.unwrap().id;
    let on_join = greenroom.create_template(&caller, on_join).await.unwrap().id;
    let request = |template, user: &str| {
        let mut request = StartRequest::new(template);
        request.user_id = Some(UserId::try_from(user.to_owned()).unwrap());
        let attributes = BTreeMap::from([("a".to_owned(), "b".repeat(1_000))]);
        request.participant_attributes = Some(ParticipantAttributes::try_from(attributes).unwrap());
        request
    };
    let (short, long) = ("ann", "\"".repeat(128));
    greenroom.start(&caller, request(on_start, &long)).await.expect("a token without dispatch");
    let refused = greenroom.start(&caller, request(on_join, &long)).await.unwrap_err();
    assert!(matches!(refused, Error::TokenTooLong), "a token with the dispatch: {refused:?}");

    rooms.set_down(true);
    let deferred = greenroom.start(&caller, request(on_start, short)).await.unwrap();
    assert_eq!(deferred.session.room_creation, RoomCreation::OnJoin);
    let refused = greenroom.start(&caller, request(on_start, &long)).await.unwrap_err();
    assert!(matches!(refused, Error::LiveKit(LiveKitError::Unavailable(_))), "{refused:?}");
}

/// Blocks the insert of sessions with a participant name until the lock 7 is released, and counts the
/// statements that insert sessions, even those that insert nothing.
const BLOCK_AND_COUNT: &str = "
    create sequence inserts;
    create function count_insert() returns trigger language plpgsql as
      'begin perform nextval(''inserts''); return null; end';
    create trigger count_insert before insert on sessions for each statement
      execute function count_insert();
    create function block() returns trigger language plpgsql set lock_timeout = 0 as
      'begin perform pg_advisory_xact_lock(7); return new; end';
    create trigger block before insert on sessions for each row when (new.participant_name is not null)
      execute function block();
    select pg_advisory_lock(7)";

/// The times of the statements that look for transactions which write sessions, of any process.
const WRITERS_QUERY_TIMES: &str = "
    select query_start::text as at from pg_stat_activity where datname = current_database()
      and query like 'select distinct virtualtransaction%'";

#[derive(QueryableByName)]
struct QueryTime {
    #[diesel(sql_type = Text)]
    at: String,
}

/// A start without a lock whose insert is blocked, and the connection that blocks it.
struct BlockedStart {
    greenroom: Greenroom,
    caller: Caller,
    template: SessionTemplateId,
    db: AsyncPgConnection,
    start: JoinHandle<Result<StartedSession, Error>>,
}

impl BlockedStart {
    /// Blocks a start whose token may be too long. It opens a transaction, without a lock.
    async fn in_transaction(database: &Database) -> Self {
        let attributes = BTreeMap::from([("a".to_owned(), "b".repeat(1_000))]);
        Self::new(database, |request| {
            request.participant_name = Some(ParticipantName::try_from("n".repeat(128)).unwrap());
            request.participant_attributes =
                Some(ParticipantAttributes::try_from(attributes).unwrap());
            request.user_id = Some(UserId::try_from("u".repeat(128)).unwrap());
        })
        .await
    }

    /// Blocks a start that is one statement.
    async fn in_one_statement(database: &Database) -> Self {
        Self::new(database, |request| {
            request.participant_name = Some(ParticipantName::try_from("n".to_owned()).unwrap());
        })
        .await
    }

    async fn new(database: &Database, change: impl FnOnce(&mut StartRequest)) -> Self {
        let greenroom = service(database, &Arc::new(MemoryRooms::default())).build().unwrap();
        let caller = Caller::backend(organization());
        let template = greenroom.create_template(&caller, template("T")).await.unwrap().id;
        let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
        db.batch_execute(BLOCK_AND_COUNT).await.unwrap();
        let mut request = StartRequest::new(template);
        change(&mut request);
        let start = tokio::spawn({
            let (greenroom, caller) = (greenroom.clone(), caller.clone());
            async move { greenroom.start(&caller, request).await }
        });
        wait_until("the start to insert its session", Duration::from_secs(3), async || {
            let is_blocked = "do $$ begin
                   assert exists (select from pg_locks where locktype = 'advisory' and not granted
                     and database = (select oid from pg_database where datname = current_database()));
                 end $$";
            Ok(db.batch_execute(is_blocked).await.ok())
        })
        .await
        .unwrap();
        Self { greenroom, caller, template, db, start }
    }

    /// Sets the limit of the organization in the background. Returns when other starts observe the
    /// limit.
    async fn set_limit(&mut self, sessions: SessionCount) -> JoinHandle<Result<(), Error>> {
        let (admin, organization) = (self.greenroom.admin(), self.caller.organization_id);
        let limit = SessionLimit::AtMost(sessions);
        let set = tokio::spawn(async move { admin.set_session_limit(organization, limit).await });
        wait_until("the limit to be set", Duration::from_secs(3), async || {
            let is_set = format!(
                "do $$ begin
                   assert exists (select from organizations where max_active_sessions = {sessions});
                 end $$"
            );
            Ok(self.db.batch_execute(&is_set).await.ok())
        })
        .await
        .unwrap();
        set
    }

    /// Lets the start finish.
    async fn unblock(&mut self) {
        self.db.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
        (&mut self.start).await.unwrap().unwrap();
    }

    /// Asserts that setting a limit waits for the start, and applies to later starts.
    async fn assert_limit_waits(&mut self, sessions: SessionCount) {
        let set = self.set_limit(sessions).await;
        // The second look shows that setting the limit waits for what the first found.
        let mut looks = HashSet::new();
        wait_until("two looks for starts in progress", Duration::from_secs(3), async || {
            let times: Vec<QueryTime> = sql_query(WRITERS_QUERY_TIMES).load(&mut self.db).await?;
            looks.extend(times.into_iter().map(|time| time.at));
            Ok((looks.len() > 1 || set.is_finished()).then_some(()))
        })
        .await
        .unwrap();
        assert!(!set.is_finished(), "the limit was set while a start could still exceed it");
        self.unblock().await;
        set.await.unwrap().unwrap();
        self.assert_limit_reached().await;
    }

    /// Asserts that the count of the organization's open sessions is the number of them.
    async fn assert_counted(&mut self) {
        let is_counted = "do $$ begin
               assert (select open from open_session_counts) = (select count(*) from sessions);
             end $$";
        self.db.batch_execute(is_counted).await.unwrap();
    }

    async fn assert_limit_reached(&self) {
        let refused = self.greenroom.start(&self.caller, StartRequest::new(self.template)).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::TooManyActiveSessions { .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn start_without_lock_does_not_forget_limit_of_organization() {
    let database = Database::fresh().await.unwrap();
    let mut blocked = BlockedStart::in_transaction(&database).await;
    let set = blocked.set_limit(SessionCount::constant::<1>()).await;
    // This start does not see the session of the other start yet.
    blocked.greenroom.start(&blocked.caller, StartRequest::new(blocked.template)).await.unwrap();
    blocked.unblock().await;
    set.await.unwrap().unwrap();

    blocked.db.batch_execute("alter sequence inserts restart").await.unwrap();
    blocked.assert_limit_reached().await;
    let once = "do $$ begin assert nextval('inserts') = 2, 'it first tried without a lock'; end $$";
    blocked.db.batch_execute(once).await.unwrap();
}

#[tokio::test]
async fn new_limit_waits_for_starts_that_read_the_old_limit() {
    let database = Database::fresh().await.unwrap();
    let mut blocked = BlockedStart::in_transaction(&database).await;
    blocked.assert_limit_waits(SessionCount::constant::<1>()).await;
    blocked.assert_counted().await;
}

#[tokio::test]
async fn start_under_the_default_limit_begins_the_count() {
    let database = Database::fresh().await.unwrap();
    let mut config = config(&database);
    config.max_active_sessions = Some(SessionCount::constant::<3>());
    let greenroom =
        Greenroom::builder(config).rooms(Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let id = on_join_template(&greenroom, &caller).await;
    greenroom.start(&caller, StartRequest::new(id)).await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let is_counted = "do $$ begin assert (select open from open_session_counts) = 1; end $$";
    wait_until("the count", Duration::from_secs(5), async || {
        Ok(db.batch_execute(is_counted).await.ok())
    })
    .await
    .unwrap();
    for _ in 0..2 {
        greenroom.start(&caller, StartRequest::new(id)).await.unwrap();
    }
    let refused = greenroom.start(&caller, StartRequest::new(id)).await.unwrap_err();
    assert!(matches!(refused, Error::TooManyActiveSessions { .. }), "{refused:?}");
}

#[tokio::test]
async fn no_session_is_committed_after_starts_were_forbidden() {
    let database = Database::fresh().await.unwrap();
    let mut blocked = BlockedStart::in_one_statement(&database).await;
    blocked.assert_limit_waits(SessionCount::constant::<0>()).await;
}

#[tokio::test]
async fn futures_are_send() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let id = send(greenroom.create_template(&caller, template("T"))).await.unwrap().id;
    let started = send(greenroom.start(&caller, StartRequest::new(id))).await.unwrap();
    assert!(send(greenroom.session(&caller, started.session.id)).await.unwrap().is_some());
}
