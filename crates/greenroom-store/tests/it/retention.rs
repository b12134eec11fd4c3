//! Tests of retention: the deletion of old sessions.

use diesel::sql_query;
use diesel_async::RunQueryDsl;
use greenroom_store::connect;
use greenroom_store::retention::delete_old_sessions;
use greenroom_testkit::pg::Database;

use crate::idempotency_keys::keyed;
use crate::session::{find, template};

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
        let found = find(&mut db, keyed(number, 1).id).await;
        assert_eq!(found.is_some(), number != 1, "{number}");
    }
}
