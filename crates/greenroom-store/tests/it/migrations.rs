//! Applying and reverting migrations, also concurrently.

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_store::migrate;
use greenroom_testkit::paths;
use greenroom_testkit::pg::Database;

#[derive(QueryableByName, Debug, PartialEq)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// The columns, constraints and indexes of the schema, one line each.
async fn dump(database: &Database) -> Vec<Line> {
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    sql_query(
        "select concat_ws(' ', table_name, column_name, ordinal_position, data_type, udt_name, is_nullable,
                          column_default, is_identity, identity_generation) as line
         from information_schema.columns where table_schema = 'public'
         union all
         select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
         from pg_constraint where connamespace = 'public'::regnamespace
         union all
         select indexdef from pg_indexes where schemaname = 'public'
         order by 1",
    )
    .load(&mut db)
    .await
    .unwrap()
}

#[tokio::test]
async fn reapplied_migrations_give_the_same_schema() {
    let database = Database::empty().await.unwrap();
    let applied = migrate::run(database.url()).await.unwrap();
    assert_eq!(applied, paths::migration_names().unwrap());
    let before = dump(&database).await;
    assert!(before.iter().any(|line| line.line.contains("sessions_due")), "{before:#?}");

    let reverted = migrate::revert(database.url(), 99).await.unwrap();
    assert_eq!(reverted.iter().rev().collect::<Vec<_>>(), applied.iter().collect::<Vec<_>>());
    let left = dump(&database).await;
    assert!(left.iter().all(|line| line.line.contains("__diesel_schema_migrations")), "{left:#?}");

    migrate::run(database.url()).await.unwrap();
    assert_eq!(dump(&database).await, before);
}

#[tokio::test]
async fn concurrent_runs_apply_each_migration_once() {
    let database = Database::empty().await.unwrap();
    let runs = (0..8).map(|_| {
        let url = database.url().to_owned();
        tokio::spawn(async move { migrate::run(&url).await.unwrap().len() })
    });
    let mut applied = 0;
    for run in runs.collect::<Vec<_>>() {
        applied += run.await.unwrap();
    }
    assert_eq!(applied, paths::migration_names().unwrap().len());
}

#[tokio::test]
async fn status_shows_pending_migrations() {
    let database = Database::empty().await.unwrap();
    let applied = async || {
        let states = migrate::status(database.url()).await.unwrap();
        states.iter().map(|state| state.applied).collect::<Vec<_>>()
    };
    let mut expected = vec![false; paths::migration_names().unwrap().len()];
    assert_eq!(applied().await, expected);
    migrate::run(database.url()).await.unwrap();
    migrate::revert(database.url(), 1).await.unwrap();
    expected.fill(true);
    *expected.last_mut().unwrap() = false;
    assert_eq!(applied().await, expected);
}
