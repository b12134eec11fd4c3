//! Rows of garbage, written by hand into every column: they affect only themselves.

use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_core::domain::{PageLimit, RoomCreation, SessionStatus};
use greenroom_core::{Caller, Greenroom, MemoryRooms, PageRequest, SessionFilter, StartRequest};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;

use crate::{organization, service, template};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Copies the session `$1` once per column and value, and again until there are 10,000 copies. A
/// copy that PostgreSQL refuses, because of the column's type or a check, does not count.
const WRITE_GARBAGE: &str = "
do $do$
declare
  original jsonb := (select to_jsonb(sessions) from sessions where id = 'ORIGINAL');
  garbage text[] := array['', ' ', 'dreaming', '-1', '0', '2147483647', '9223372036854775807',
    'infinity', '-infinity', '294276-12-31', '0001-01-01', '{}', '[]', '[7]', '{\"a\": {}}',
    'true', repeat('x', 100000), null];
  columns text[] := array(select column_name from information_schema.columns
    where table_name = 'sessions' and column_name not in ('id', 'organization_id'));
  accepted integer := 0;
  copy jsonb;
begin
  while accepted < 10000 loop
    for number in 1 .. array_length(columns, 1) * array_length(garbage, 1) loop
      copy := original || jsonb_build_object('id', gen_random_uuid(), 'next_check_at', now(),
        'room_name', 'session_20261127_120000_' || substr(md5(random()::text), 1, 6));
      begin
        insert into sessions select (jsonb_populate_record(null::sessions, copy || jsonb_build_object(
          columns[1 + number / array_length(garbage, 1) % array_length(columns, 1)],
          case when number % 2 = 0 and garbage[1 + number % array_length(garbage, 1)] ~ '^[\\[{]'
            then garbage[1 + number % array_length(garbage, 1)]::jsonb
            else to_jsonb(garbage[1 + number % array_length(garbage, 1)]) end))).*;
        accepted := accepted + 1;
      exception when others then null;
      end;
    end loop;
  end loop;
end $do$";

#[derive(QueryableByName)]
struct Rows {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

async fn started(greenroom: &Greenroom, caller: &Caller) -> greenroom_core::Session {
    let mut settings = template("On join");
    settings.room_creation = RoomCreation::OnJoin.into();
    let template = match greenroom.create_template(caller, settings).await {
        Ok(template) => template.id,
        Err(error) => panic!("{error}"),
    };
    greenroom.start(caller, StartRequest::new(template)).await.unwrap().session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_rows_of_garbage_hurt_only_themselves() {
    let database = Database::fresh().await.unwrap();
    let rooms = Arc::new(MemoryRooms::default());
    let greenroom = service(&database, &rooms).build().unwrap();
    let (caller, other) = (Caller::backend(organization()), Caller::backend(organization()));
    let original = started(&greenroom, &caller).await;
    let healthy = started(&greenroom, &other).await;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let write = WRITE_GARBAGE.replace("ORIGINAL", &original.id.to_string());
    db.batch_execute(&write).await.unwrap();
    let count =
        sql_query("select count(*) as number from sessions where organization_id::text = $1")
            .bind::<Text, _>(caller.organization_id.to_string());
    let rows = count.get_result::<Rows>(&mut db).await.unwrap().number;
    assert!(rows > 10_000, "{rows} rows");

    let expire = format!(
        "update sessions set join_by = now(), next_check_at = now() where id = '{}'",
        healthy.id
    );
    db.batch_execute(&expire).await.unwrap();
    let is_expired = async {
        wait_until("the healthy session to expire", TIMEOUT, async || {
            let session = greenroom.session(&other, healthy.id).await?.unwrap();
            Ok((session.status.as_str() == SessionStatus::Expired.as_str()).then_some(()))
        })
        .await
        .unwrap();
        // No row of garbage keeps the others from being checked.
        let all_checked = "do $$ begin assert not exists (select from sessions
            where next_check_at <= now() and revision = 0); end $$";
        wait_until("all rows to be checked", TIMEOUT, async || {
            Ok(db.batch_execute(all_checked).await.ok())
        })
        .await
        .unwrap();
    };
    greenroom.run_keeper(is_expired).await;

    let list = async |caller: &Caller| {
        let page = PageRequest::first(PageLimit::constant::<100>());
        greenroom.sessions(caller, SessionFilter::default(), page).await.unwrap().items.len()
    };
    assert_eq!(list(&other).await, 1);
    assert!(list(&caller).await > 0, "a page shows what can be decoded");
    started(&greenroom, &Caller::backend(organization())).await;
}
