//! Tests of idempotency keys: how long a session holds its key, and the release of expired keys.

use diesel::sql_query;
use diesel_async::RunQueryDsl;
use greenroom_store::idempotency::purge_expired_keys;
use greenroom_store::{Fingerprint, KeyClaim, NewSession, StartKey, TokenReissue, connect};
use greenroom_testkit::pg::Database;

use crate::session::{ORGANIZATION, room, session, template};

pub fn keyed(number: u32, key: u8) -> NewSession {
    let new = session(u128::from(number));
    let key =
        StartKey::Explicit(KeyClaim { hash: [key; 32], fingerprint: Fingerprint::new(1, [1; 32]) });
    NewSession { room_name: room(number), key, ..new }
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
    let replayed = TokenReissue::Key(&key)
        .execute(&mut db, ORGANIZATION, replay.defaults.token_ttl)
        .await
        .unwrap();
    assert_eq!(replayed.unwrap().setup.session.id, first.setup.session.id);
    let other = KeyClaim { fingerprint: Fingerprint::new(1, [2; 32]), ..key };
    assert!(
        TokenReissue::Key(&other)
            .execute(&mut db, ORGANIZATION, replay.defaults.token_ttl)
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
            .execute(&mut db, ORGANIZATION, replay.defaults.token_ttl)
            .await
            .unwrap()
            .is_none()
    );
    assert!(key.release_if_expired(&mut db, ORGANIZATION).await.unwrap());
    let second = replay.insert(&mut db, None).await.unwrap().unwrap();
    assert_eq!(second.setup.session.id, keyed(2, 7).id, "the key was released");
}

#[tokio::test]
async fn only_fingerprints_of_same_version_are_compared() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    for (number, (stored, sent, is_same)) in [
        ((1, [1; 32]), (1, [1; 32]), true),
        ((1, [1; 32]), (1, [2; 32]), false),
        ((2, [1; 32]), (2, [1; 32]), true),
        ((2, [1; 32]), (2, [2; 32]), false),
        ((1, [1; 32]), (2, [2; 32]), true),
        ((2, [1; 32]), (1, [2; 32]), true),
        ((255, [1; 32]), (1, [2; 32]), true),
        // A digest that begins with a version.
        ((1, [2; 32]), (2, [2; 32]), true),
        ((1, [2; 32]), (1, [1; 32]), false),
    ]
    .into_iter()
    .enumerate()
    {
        let new = keyed(u32::try_from(number).unwrap() + 1, u8::try_from(number).unwrap());
        let claim = |(version, digest)| KeyClaim {
            fingerprint: Fingerprint::new(version, digest),
            ..*new.key.claim().unwrap()
        };
        let key = StartKey::Explicit(claim(stored));
        NewSession { key, ..new.clone() }.insert(&mut db, None).await.unwrap().unwrap();
        let sent = claim(sent);
        let holder = sent.find_holder(&mut db, ORGANIZATION).await.unwrap().unwrap();
        assert_eq!(holder.is_same_request, is_same, "{number}");
        let reissue = TokenReissue::Key(&sent);
        let replayed =
            reissue.execute(&mut db, ORGANIZATION, new.defaults.token_ttl).await.unwrap();
        assert_eq!(replayed.is_some(), is_same, "{number}");
    }
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
