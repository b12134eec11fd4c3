//! An end user's request is its own key, while they may come back to the session it started.

use diesel::sql_query;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{RoomName, SessionId, UserId};
use greenroom_store::{KeyClaim, KeyKind, NewSession, connect};
use greenroom_testkit::pg::Database;

use crate::session::{ORGANIZATION, session, template};

const KEY: KeyClaim = KeyClaim { kind: KeyKind::Implicit, hash: [7; 32], fingerprint: [1; 32] };

fn start(number: u32) -> NewSession {
    let new = session(u128::from(number));
    let room_name = RoomName::new(new.created_at, number);
    let user_id = Some(UserId::try_from("ann".to_owned()).unwrap());
    NewSession { room_name, user_id, key: Some(KEY), ..new }
}

async fn started(db: &mut AsyncPgConnection, number: u32) -> Option<SessionId> {
    let started = start(number).insert(db).await.unwrap();
    started.map(|started| started.setup.session.id)
}

#[tokio::test]
async fn a_session_is_found_again_while_its_user_may_come_back() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let first = started(&mut db, 1).await;
    assert_eq!(first, Some(start(1).id));
    let active = "status = 'active', started_at = now(), end_by = now() + interval '1 hour'";
    for (standing, change, again) in [
        ("it waits", "status = 'pending'".to_owned(), true),
        ("the user is there", format!("{active}, user_joined_at = now()"), false),
        ("the user is out", "user_left_at = now() + interval '1 second'".to_owned(), true),
        ("and there again", "user_joined_at = now() + interval '2 seconds'".to_owned(), false),
        (
            "it is over",
            "status = 'ended', ended_at = now(), end_reason = 'user_left'".to_owned(),
            false,
        ),
    ] {
        sql_query(format!("update sessions set {change}")).execute(&mut db).await.unwrap();
        let found = started(&mut db, 2).await;
        assert_eq!(found, first.filter(|_| again), "{standing}");
        // What may be found again keeps its key, whoever asks it back.
        if again {
            KEY.release(&mut db, ORGANIZATION).await.unwrap();
            assert_eq!(started(&mut db, 2).await, first, "{standing}");
        }
    }
    KEY.release(&mut db, ORGANIZATION).await.unwrap();
    assert_eq!(started(&mut db, 2).await, Some(start(2).id), "the key is free");
    assert_eq!(started(&mut db, 3).await, Some(start(2).id));
}

#[tokio::test]
async fn a_user_who_never_left_loses_the_key_of_their_session() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    started(&mut db, 1).await.unwrap();
    let joined = "update sessions set status = 'active', user_joined_at = now()";
    sql_query(joined).execute(&mut db).await.unwrap();
    assert_eq!(started(&mut db, 2).await, None);
    KEY.release(&mut db, ORGANIZATION).await.unwrap();
    assert_eq!(started(&mut db, 2).await, Some(start(2).id));
}

#[tokio::test]
async fn a_session_that_is_found_again_has_the_later_expiry_and_its_own_template() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let first = start(1).insert(&mut db).await.unwrap().unwrap();
    // The template has changed, and even been archived: the session keeps what it was started with.
    sql_query("update session_templates set superseded_at = now()").execute(&mut db).await.unwrap();
    let mut later = start(2);
    later.token.issued_at += chrono::Duration::seconds(60);
    let again = later.insert(&mut db).await.unwrap().unwrap();
    assert_eq!(again.setup.session.id, first.setup.session.id);
    assert_eq!(again.token_expiry, first.token_expiry + chrono::Duration::seconds(60));
    assert_eq!(again.setup.session.token_expiry, again.token_expiry);
    let earlier = start(3).insert(&mut db).await.unwrap().unwrap();
    assert_eq!(earlier.token_expiry, first.token_expiry, "this token's own");
    assert_eq!(earlier.setup.session.token_expiry, again.token_expiry, "the latest of all");
}
