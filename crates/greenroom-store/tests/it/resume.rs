//! Starts with an implicit key, which resume the user's session.

use diesel::sql_query;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::template::TokenTtl;
use greenroom_domain::{SessionId, UserId};
use greenroom_store::{Fingerprint, KeyClaim, NewSession, StartDefaults, StartKey, connect};
use greenroom_testkit::pg::Database;

use crate::session::{DEFAULTS, ORGANIZATION, room, session, template};

const KEY: KeyClaim = KeyClaim { hash: [7; 32], fingerprint: Fingerprint::new(1, [1; 32]) };

fn start(number: u32) -> NewSession {
    let new = session(u128::from(number));
    let user_id = Some(UserId::try_from("ann".to_owned()).unwrap());
    NewSession { room_name: room(number), user_id, key: StartKey::Implicit(KEY), ..new }
}

async fn start_id(db: &mut AsyncPgConnection, number: u32) -> Option<SessionId> {
    let started = start(number).insert(db, None).await.unwrap();
    started.map(|started| started.setup.session.id)
}

fn id(number: u32) -> SessionId {
    session(number.into()).id
}

#[tokio::test]
async fn session_is_resumed_while_its_user_may_come_back() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let first = start_id(&mut db, 1).await;
    assert_eq!(first, Some(id(1)));
    let active = "status = 'active', started_at = now(), end_by = now() + interval '1 hour'";
    for (state, change, is_resumable) in [
        ("pending", "status = 'pending'".to_owned(), true),
        ("the user is in the room", format!("{active}, user_joined_at = now()"), false),
        ("the user has left", "user_left_at = now() + interval '1 second'".to_owned(), true),
        (
            "the user is in the room again",
            "user_joined_at = now() + interval '2 seconds'".to_owned(),
            false,
        ),
        (
            "the session is over",
            "status = 'ended', ended_at = now(), end_reason = 'user_left'".to_owned(),
            false,
        ),
    ] {
        sql_query(format!("update sessions set {change}")).execute(&mut db).await.unwrap();
        let resumed = start_id(&mut db, 2).await;
        assert_eq!(resumed, first.filter(|_| is_resumable), "{state}");
        // A resumable session keeps its key.
        if is_resumable {
            KEY.release(&mut db, ORGANIZATION).await.unwrap();
            assert_eq!(start_id(&mut db, 2).await, first, "{state}");
        }
    }
    KEY.release(&mut db, ORGANIZATION).await.unwrap();
    assert_eq!(start_id(&mut db, 2).await, Some(id(2)), "the key was released");
    assert_eq!(start_id(&mut db, 3).await, Some(id(2)));
}

#[tokio::test]
async fn session_releases_its_key_if_its_user_never_left() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    start_id(&mut db, 1).await.unwrap();
    let joined = "update sessions set status = 'active', user_joined_at = now()";
    sql_query(joined).execute(&mut db).await.unwrap();
    assert_eq!(start_id(&mut db, 2).await, None);
    KEY.release(&mut db, ORGANIZATION).await.unwrap();
    assert_eq!(start_id(&mut db, 2).await, Some(id(2)));
}

#[tokio::test]
async fn session_older_than_24_hours_is_not_resumed() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    start_id(&mut db, 1).await.unwrap();
    let age = |age: &str| format!("update sessions set created_at = now() - interval '{age}'");
    sql_query(age("23 hours 59 minutes")).execute(&mut db).await.unwrap();
    KEY.release(&mut db, ORGANIZATION).await.unwrap();
    assert_eq!(start_id(&mut db, 2).await, Some(id(1)));
    // The session still holds the key: retention has not purged it yet.
    sql_query(age("24 hours")).execute(&mut db).await.unwrap();
    assert_eq!(start_id(&mut db, 2).await, None);
    KEY.release(&mut db, ORGANIZATION).await.unwrap();
    assert_eq!(start_id(&mut db, 2).await, Some(id(2)));
}

#[tokio::test]
async fn resumed_session_has_latest_expiry_and_its_own_template() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    // Within a transaction, `now()` stands still.
    sql_query("begin").execute(&mut db).await.unwrap();
    let first = start(1).insert(&mut db, None).await.unwrap().unwrap();
    // The session keeps the version of the template that it was started from.
    sql_query("update session_templates set superseded_at = now()").execute(&mut db).await.unwrap();
    let defaults = StartDefaults { token_ttl: TokenTtl::constant::<3660>(), ..DEFAULTS };
    let later = NewSession { defaults, ..start(2) };
    let resumed = later.insert(&mut db, None).await.unwrap().unwrap();
    assert_eq!(resumed.setup.session.id, first.setup.session.id);
    assert_eq!(resumed.token_expiry, first.token_expiry + chrono::Duration::seconds(60));
    assert_eq!(resumed.setup.session.token_expiry, resumed.token_expiry);
    let earlier = start(3).insert(&mut db, None).await.unwrap().unwrap();
    assert_eq!(earlier.token_expiry, first.token_expiry, "the expiry of this token");
    assert_eq!(
        earlier.setup.session.token_expiry, resumed.token_expiry,
        "the latest of all tokens"
    );
}
