//! Idempotency keys and the deletion of old sessions.

use diesel::sql_query;
use diesel_async::RunQueryDsl;
use greenroom_domain::RoomName;
use greenroom_store::idempotency::purge_expired_keys;
use greenroom_store::retention::delete_old_sessions;
use greenroom_store::{KeyClaim, NewSession, Session, StartKey, TokenReissue, connect};
use greenroom_testkit::pg::Database;

use crate::session::{ORGANIZATION, session, template};

fn keyed(number: u32, key: u8) -> NewSession {
    let new = session(u128::from(number));
    let room_name = RoomName::new(new.created_at, number);
    let key = StartKey::Explicit(KeyClaim { hash: [key; 32], fingerprint: [1; 32] });
    NewSession { room_name, key, ..new }
}

#[tokio::test]
async fn session_holds_key_for_24_hours() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let first = keyed(1, 7).insert(&mut db, None).await.unwrap().unwrap();
    sql_query("update sessions set created_at = now()").execute(&mut db).await.unwrap();
    assert!(keyed(2, 7).insert(&mut db, None).await.unwrap().is_none());
    let replay = keyed(2, 7);
    let key = *replay.key.claim().unwrap();
    let replayed =
        TokenReissue::Key(&key).execute(&mut db, ORGANIZATION, replay.token).await.unwrap();
    assert_eq!(replayed.unwrap().setup.session.id, first.setup.session.id);
    let other = KeyClaim { fingerprint: [2; 32], ..key };
    assert!(
        TokenReissue::Key(&other)
            .execute(&mut db, ORGANIZATION, replay.token)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(key.find_holder(&mut db, ORGANIZATION).await.unwrap().unwrap().id, keyed(1, 7).id);

    assert!(!key.release_if_expired(&mut db, ORGANIZATION).await.unwrap());
    let age = "update sessions set created_at = now() - interval '24 hours 1 second'";
    sql_query(age).execute(&mut db).await.unwrap();
    assert!(
        TokenReissue::Key(&key)
            .execute(&mut db, ORGANIZATION, replay.token)
            .await
            .unwrap()
            .is_none()
    );
    assert!(key.release_if_expired(&mut db, ORGANIZATION).await.unwrap());
    let second = replay.insert(&mut db, None).await.unwrap().unwrap();
    assert_eq!(second.setup.session.id, keyed(2, 7).id, "the key was released");
}

#[tokio::test]
async fn purge_releases_only_expired_keys() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    for number in 1..=5 {
        keyed(number, u8::try_from(number).unwrap()).insert(&mut db, None).await.unwrap().unwrap();
    }
    sql_query("update sessions set created_at = now()").execute(&mut db).await.unwrap();
    sql_query("update sessions set created_at = now() - interval '25 hours' where id <= '00000000-0000-0000-0000-000000000003'")
        .execute(&mut db)
        .await
        .unwrap();
    let mut cursor = purge_expired_keys(&mut db, None).await.unwrap();
    assert!(cursor.is_some());
    cursor = purge_expired_keys(&mut db, cursor.as_ref()).await.unwrap();
    assert_eq!(cursor, None, "the first batch contains all keys");
    for number in 1..=5 {
        let key = keyed(number, u8::try_from(number).unwrap()).key;
        let key = *key.claim().unwrap();
        let holder = key.find_holder(&mut db, ORGANIZATION).await.unwrap();
        assert_eq!(holder.is_some(), number > 3, "{number}");
    }
}

#[tokio::test]
async fn sessions_are_deleted_by_the_age_of_their_end() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    for number in 1..=4 {
        keyed(number, u8::try_from(number).unwrap()).insert(&mut db, None).await.unwrap().unwrap();
    }
    let ended =
        "status = 'ended', end_reason = 'requested', created_at = now() - interval '40 days'";
    for (number, change) in [
        (1, format!("{ended}, ended_at = now() - interval '31 days', next_check_at = null")),
        (2, format!("{ended}, ended_at = now() - interval '29 days', next_check_at = null")),
        (3, format!("{ended}, ended_at = now() - interval '31 days'")),
        (4, "created_at = now() - interval '40 days'".to_owned()),
    ] {
        let change = format!(
            "update sessions set {change} where id = '00000000-0000-0000-0000-00000000000{number}'"
        );
        sql_query(change).execute(&mut db).await.unwrap();
    }
    assert!(!delete_old_sessions(&mut db, 30).await.unwrap(), "there are fewer than a full batch");
    for number in 1..=4_u32 {
        let found = Session::find(&mut db, ORGANIZATION, keyed(number, 1).id);
        assert_eq!(found.await.unwrap().is_some(), number != 1, "{number}");
    }
}
