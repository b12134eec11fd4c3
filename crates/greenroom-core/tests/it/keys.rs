//! Starts with a key, explicit or implicit: which session a repeated start gets, and when none.

use std::sync::Arc;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{IdempotencyKey, RoomCreation, SessionTemplateId, UserId};
use greenroom_core::{Caller, Error, Greenroom, MemoryRooms, StartRequest};
use greenroom_testkit::pg::Database;

use crate::{organization, service, template};

async fn on_join_template(greenroom: &Greenroom, caller: &Caller) -> SessionTemplateId {
    let mut settings = template("On join");
    settings.room_creation = RoomCreation::OnJoin;
    greenroom.create_template(caller, settings).await.unwrap().id
}

fn keyed(template: SessionTemplateId, key: &str) -> StartRequest {
    let mut request = StartRequest::new(template);
    request.idempotency_key = Some(IdempotencyKey::try_from(key.to_owned()).unwrap());
    request
}

/// LiveKit is down, so the keeper cannot expire a session whose time is over.
#[tokio::test]
async fn session_out_of_time_issues_no_token() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let template = on_join_template(&greenroom, &caller).await;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let active = "status = 'active', started_at = now(), user_joined_at = now()";
    for (key, state, has_time) in [
        ("1", "join_by = now() + interval '1 minute'".to_owned(), true),
        ("2", "join_by = now()".to_owned(), false),
        ("3", format!("{active}, join_by = now(), end_by = now() + interval '1 minute'"), true),
        ("4", format!("{active}, end_by = now()"), false),
    ] {
        let first = greenroom.start(&caller, keyed(template, key)).await.unwrap().session.id;
        let state = format!("update sessions set {state} where id = '{first}'");
        db.batch_execute(&state).await.unwrap();
        let again = greenroom.start(&caller, keyed(template, key)).await;
        let refreshed = greenroom.refresh_token(&caller, first).await;
        if has_time {
            assert_eq!(again.unwrap().session.id, first, "{state}");
            assert_eq!(refreshed.unwrap().unwrap().session.id, first, "{state}");
        } else {
            for refused in [again.err(), refreshed.err()] {
                let is_over = matches!(&refused, Some(Error::SessionOver(id)) if *id == first);
                assert!(is_over, "{state}: {refused:?}");
            }
        }
    }
}

#[tokio::test]
async fn fingerprint_of_other_version_is_not_compared() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &Arc::new(MemoryRooms::default())).build().unwrap();
    let caller = Caller::backend(organization());
    let template = on_join_template(&greenroom, &caller).await;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let first = greenroom.start(&caller, keyed(template, "k")).await.unwrap().session.id;
    let mut other = keyed(template, "k");
    other.user_id = Some(UserId::try_from("ann".to_owned()).unwrap());
    let refused = greenroom.start(&caller, other.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::IdempotencyKeyReused), "{refused:?}");

    // A version other than 1 precedes its digest.
    let versioned = "update sessions set idempotency_fingerprint = '\\x02' || sha256('other')";
    db.batch_execute(versioned).await.unwrap();
    for request in [keyed(template, "k"), other] {
        let again = greenroom.start(&caller, request).await.unwrap();
        assert_eq!((again.session.id, again.replayed), (first, true));
    }
}
