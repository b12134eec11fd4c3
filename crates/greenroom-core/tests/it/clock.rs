//! A process whose clock differs from PostgreSQL's: PostgreSQL's time decides.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{
    IdempotencyKey, RoomCreation, SessionId, SessionStatus, SessionTemplateId, UserId,
};
use greenroom_core::{
    Caller, Clock, Error, Greenroom, MemoryRooms, PageRequest, SessionFilter, StartRequest,
};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;

use crate::{organization, service, template};

const TIMEOUT: Duration = Duration::from_secs(20);

/// By how much the process's clock is ahead of PostgreSQL's.
const SKEWS: [TimeDelta; 3] =
    [TimeDelta::seconds(-90), TimeDelta::hours(-25), TimeDelta::hours(25)];

/// A service with a wrong clock, and its database.
struct Skewed {
    _database: Database,
    db: AsyncPgConnection,
    rooms: Arc<MemoryRooms>,
    greenroom: Greenroom,
    caller: Caller,
    template: SessionTemplateId,
}

impl Skewed {
    async fn by(skew: TimeDelta, room_creation: RoomCreation) -> Self {
        let database = Database::fresh().await.unwrap();
        let rooms = Arc::new(MemoryRooms::default());
        let clock = Clock::Fixed(Clock::System.now() + skew);
        let greenroom = service(&database, &rooms).clock(clock).build().unwrap();
        let caller = Caller::backend(organization());
        let mut settings = template("T");
        settings.room_creation = room_creation.into();
        let template = greenroom.create_template(&caller, settings).await.unwrap().id;
        let db = AsyncPgConnection::establish(database.url()).await.unwrap();
        Self { _database: database, db, rooms, greenroom, caller, template }
    }

    fn keyed_request(&self) -> StartRequest {
        let mut request = StartRequest::new(self.template);
        request.idempotency_key = Some(IdempotencyKey::try_from("k".to_owned()).unwrap());
        request
    }

    /// Starts a session whose room LiveKit does not open, and returns its id.
    async fn start_without_room(&mut self) -> SessionId {
        self.rooms.set_down(true);
        let refused = self.greenroom.start(&self.caller, self.keyed_request()).await.unwrap_err();
        assert!(matches!(refused, Error::LiveKit(_)), "{refused:?}");
        self.rooms.set_down(false);
        let all = (SessionFilter::default(), PageRequest::default());
        let sessions = self.greenroom.sessions(&self.caller, all.0, all.1).await.unwrap();
        sessions.items[0].id
    }

    /// A service with a session of this age, whose room LiveKit did not open, and the session's id.
    async fn with_unopened_start(skew: TimeDelta, age: &str) -> (Self, SessionId) {
        let mut skewed = Self::by(skew, RoomCreation::OnStart).await;
        let id = skewed.start_without_room().await;
        skewed.age(age).await;
        (skewed, id)
    }

    /// Makes every session older.
    async fn age(&mut self, age: &str) {
        let age = format!("update sessions set created_at = created_at - interval '{age}'");
        self.db.batch_execute(&age).await.unwrap();
    }

    /// Runs the keeper until it has listed the session's room.
    async fn check_until_listed(&mut self, id: SessionId) {
        self.db.batch_execute("update sessions set next_check_at = now()").await.unwrap();
        let session = self.greenroom.session(&self.caller, id).await.unwrap().unwrap();
        let room = session.room_name.checked().unwrap();
        let is_listed = async {
            let is_listed = async || Ok((self.rooms.lists(&room) > 0).then_some(()));
            wait_until("the keeper to list the room", TIMEOUT, is_listed).await.unwrap();
        };
        self.greenroom.run_keeper(is_listed).await;
    }

    /// Runs the keeper until the session fulfills a condition, such as that it has ended.
    async fn check_until(&mut self, condition: &str) {
        self.db.batch_execute("update sessions set next_check_at = now()").await.unwrap();
        let (greenroom, db) = (self.greenroom.clone(), &mut self.db);
        greenroom
            .run_keeper(async {
                let checked =
                    format!("do $$ begin assert (select {condition} from sessions); end $$");
                let is_checked = async || Ok(db.batch_execute(&checked).await.ok());
                wait_until("the keeper to check the session", TIMEOUT, is_checked).await.unwrap();
            })
            .await;
    }
}

#[tokio::test]
async fn keyed_retry_opens_room_within_a_minute() {
    for skew in SKEWS {
        let (mut skewed, id) = Skewed::with_unopened_start(skew, "55 seconds").await;
        skewed.rooms.set_down(true);
        skewed.check_until_listed(id).await;
        skewed.rooms.set_down(false);
        let retried = skewed.greenroom.start(&skewed.caller, skewed.keyed_request()).await;
        let retried = retried.unwrap_or_else(|error| panic!("{skew}: {error}"));
        assert_eq!((retried.session.id, retried.replayed), (id, true), "{skew}");
    }
}

#[tokio::test]
async fn session_without_room_fails_after_a_minute() {
    for skew in SKEWS {
        let (mut skewed, id) = Skewed::with_unopened_start(skew, "61 seconds").await;
        skewed.check_until("status <> 'pending'").await;
        let session = skewed.greenroom.session(&skewed.caller, id).await.unwrap().unwrap();
        assert_eq!(session.status, SessionStatus::Failed, "{skew}");
    }
}

#[tokio::test]
async fn key_starts_one_session_in_24_hours() {
    for skew in SKEWS {
        let mut skewed = Skewed::by(skew, RoomCreation::OnJoin).await;
        let user = UserId::try_from("ann".to_owned()).unwrap();
        let end_user = Caller::end_user(skewed.caller.organization_id, user);
        let keyed = (skewed.caller.clone(), skewed.keyed_request());
        let keyless = (end_user, StartRequest::new(skewed.template));
        let greenroom = skewed.greenroom.clone();
        let start = async |(caller, request): &(Caller, StartRequest)| {
            greenroom.start(caller, request.clone()).await.unwrap()
        };
        let mut firsts = Vec::new();
        for request in [&keyed, &keyless] {
            let first = start(request).await.session.id;
            assert_eq!(start(request).await.session.id, first, "{skew}");
            firsts.push(first);
        }
        skewed.age("24 hours").await;
        for (request, first) in [&keyed, &keyless].into_iter().zip(firsts) {
            assert_ne!(start(request).await.session.id, first, "{skew}");
        }
    }
}

#[tokio::test]
async fn session_and_token_have_times_of_postgres() {
    for skew in SKEWS {
        let skewed = Skewed::by(skew, RoomCreation::OnJoin).await;
        let near = |at: DateTime<Utc>| (at - Clock::System.now()).abs() < TimeDelta::minutes(1);
        let started = skewed.greenroom.start(&skewed.caller, skewed.keyed_request()).await.unwrap();
        let created_at = started.session.created_at;
        assert!(near(created_at), "{skew}: {created_at}");
        let id = started.session.id;
        let refreshed = skewed.greenroom.refresh_token(&skewed.caller, id).await.unwrap().unwrap();
        for token in [&started, &refreshed] {
            assert!(near(token.token_expiry - TimeDelta::hours(1)), "{skew}");
        }
        // The id contains the time of the process.
        let millisecond = TimeDelta::milliseconds(1);
        for (after, before, is_listed) in [
            (created_at, created_at + millisecond, true),
            (created_at + millisecond, created_at + millisecond * 2, false),
            (created_at - millisecond, created_at, false),
        ] {
            let mut filter = SessionFilter::default();
            filter.created_after = Some(after);
            filter.created_before = Some(before);
            let page = PageRequest::default();
            let listed = skewed.greenroom.sessions(&skewed.caller, filter, page).await.unwrap();
            assert_eq!(listed.items.len(), usize::from(is_listed), "{skew}");
        }
    }
}
