//! Sessions that are read with one statement.

use diesel::sql_query;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{OrganizationId, SessionId};
use greenroom_store::{NewSession, SessionKey, StoreError, connect, session::find_many};
use greenroom_testkit::pg::Database;
use uuid::Uuid;

use crate::session::{ORGANIZATION, room, session, template};

fn key(organization_id: OrganizationId, number: u128) -> SessionKey {
    SessionKey { organization_id, id: SessionId(Uuid::from_u128(number)) }
}

#[tokio::test]
async fn undecodable_row_and_other_organization_do_not_affect_other_keys() {
    let database = Database::fresh().await.unwrap();
    let mut db = connect(database.url()).await.unwrap();
    template(&mut db, None).await;
    for number in 1..=3 {
        let new = NewSession { room_name: room(number), ..session(number.into()) };
        new.insert(&mut db, None).await.unwrap().unwrap();
    }
    let mut unchecked = AsyncPgConnection::establish(database.url()).await.unwrap();
    let edit =
        "update sessions set metadata = '[7]' where id = '00000000-0000-0000-0000-000000000002'";
    sql_query(edit).execute(&mut unchecked).await.unwrap();

    let other = OrganizationId(Uuid::from_u128(9));
    let keys = [key(ORGANIZATION, 3), key(other, 1), key(ORGANIZATION, 2), key(ORGANIZATION, 4)];
    let mut found = find_many(&mut db, &keys).await.unwrap();
    found.sort_by_key(|(key, _)| *key);
    let [(undecodable, Err(StoreError::Undecodable(_))), (valid, Ok(session))] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!((*undecodable, *valid), (keys[2], keys[0]));
    assert_eq!((session.organization_id, session.id), (ORGANIZATION, keys[0].id));
    assert!(find_many(&mut db, &[]).await.unwrap().is_empty());
}
