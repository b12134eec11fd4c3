//! Limits of active sessions: their maximum, and the lock that a start needs.

use diesel_async::{AsyncConnection, AsyncPgConnection};
use greenroom_domain::{OrganizationId, SessionCount};
use greenroom_store::{NewSession, SessionLimit, StoreError, connect, organization};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

use crate::session::{ORGANIZATION, room, session, template};

const ONE: SessionCount = SessionCount::constant::<1>();
const TWO: SessionCount = SessionCount::constant::<2>();

fn start(number: u32) -> NewSession {
    NewSession { room_name: room(number), ..session(number.into()) }
}

/// Starts a session under the lock of an organization, and returns whether it was inserted.
async fn start_under_lock(
    db: &mut AsyncPgConnection,
    new: &NewSession,
    of: OrganizationId,
) -> bool {
    let started = db.transaction(async |db: &mut AsyncPgConnection| {
        let lock = organization::lock_sessions(db, of, new.max_active_sessions).await?;
        Ok::<_, StoreError>(new.insert(db, Some(&lock)).await?.is_some())
    });
    started.await.unwrap()
}

#[tokio::test]
async fn maximum_is_own_limit_or_default() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    let unknown = organization::lock_sessions(&mut db, ORGANIZATION, Some(TWO)).await.unwrap();
    assert_eq!(unknown.maximum(), Some(TWO), "an organization without a row");
    template(&mut db, None).await;
    start(1).insert(&mut db, None).await.unwrap().unwrap();
    let mut number = 1;
    for (limit, default, maximum) in [
        (SessionLimit::Default, None, None),
        (SessionLimit::Default, Some(ONE), Some(ONE)),
        (SessionLimit::AtMost(ONE), None, Some(ONE)),
        (SessionLimit::AtMost(ONE), Some(TWO), Some(ONE)),
        (SessionLimit::Unlimited, None, None),
        (SessionLimit::Unlimited, Some(ONE), None),
    ] {
        organization::set_limit(&mut db, ORGANIZATION, limit).await.unwrap();
        let lock = organization::lock_sessions(&mut db, ORGANIZATION, default).await.unwrap();
        assert_eq!(lock.maximum(), maximum, "{limit:?} {default:?}");
        let (usage, _) = organization::usage(&mut db, ORGANIZATION, default).await.unwrap();
        assert_eq!(usage, maximum, "{limit:?} {default:?}");
        number += 1;
        let new = NewSession { max_active_sessions: default, ..start(number) };
        let is_started = start_under_lock(&mut db, &new, ORGANIZATION).await;
        assert_eq!(is_started, maximum.is_none(), "{limit:?} {default:?}");
    }
}

#[tokio::test]
async fn start_in_limited_organization_needs_lock_of_that_organization() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    let other = OrganizationId(Uuid::from_u128(9));
    organization::ensure(&mut db, other).await.unwrap();
    let new = NewSession { max_active_sessions: Some(TWO), ..start(1) };
    assert!(new.insert(&mut db, None).await.unwrap().is_none());
    assert!(!start_under_lock(&mut db, &new, other).await);
    assert!(start_under_lock(&mut db, &new, ORGANIZATION).await);
}
