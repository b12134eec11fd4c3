//! Applying and reverting migrations, also concurrently.

use std::path::PathBuf;
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::FileBasedMigrations;
use greenroom_store::{StoreError, migrate, revert};
use greenroom_testkit::paths;
use greenroom_testkit::pg::Database;
use tokio::time::timeout;

#[derive(QueryableByName, Debug, PartialEq)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// The columns, constraints, indexes, triggers and functions of the schema, one line each.
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
         union all
         select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
         union all
         select pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
           and proname <> 'diesel_manage_updated_at' and proname <> 'diesel_set_updated_at'
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

#[tokio::test]
async fn plan_of_revert_names_lost_data() {
    let database = Database::fresh().await.unwrap();
    let names = paths::migration_names().unwrap();
    let plan = revert::plan(database.url(), 99).await.unwrap();
    let planned: Vec<_> = plan.iter().rev().map(|reversal| reversal.migration.clone()).collect();
    assert_eq!(planned, names, "`down_sql!` lists every migration");
    assert!(plan.iter().all(|reversal| reversal.losses.is_empty()), "{plan:?}");
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let insert =
        "insert into organizations (id) select gen_random_uuid() from generate_series(1, 3)";
    db.batch_execute(insert).await.unwrap();
    assert_eq!(revert::plan(database.url(), 1).await.unwrap(), plan[..1]);
    let plan = revert::plan(database.url(), 99).await.unwrap();
    let losses: Vec<_> = plan.iter().flat_map(|reversal| &reversal.losses).collect();
    assert_eq!(
        losses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["3 rows of organizations"]
    );
    assert_eq!(plan.last().unwrap().losses.len(), 1);
}

/// A directory of migrations, which is removed when the value is dropped.
struct Migrations(PathBuf);

impl Migrations {
    fn new() -> Self {
        Self(paths::create_temp_dir("migrations", None).unwrap())
    }

    /// Adds a migration with the next number.
    fn add(&self, name: &str, up: &str, in_transaction: bool) {
        let number = std::fs::read_dir(&self.0).unwrap().count() + 1;
        let directory = self.0.join(format!("2030-01-01-{number:06}_{name}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("up.sql"), up).unwrap();
        std::fs::write(directory.join("down.sql"), "drop table if exists one").unwrap();
        let metadata = format!("run_in_transaction = {in_transaction}");
        std::fs::write(directory.join("metadata.toml"), metadata).unwrap();
    }

    fn source(&self) -> FileBasedMigrations {
        FileBasedMigrations::from_path(&self.0).unwrap()
    }
}

impl Drop for Migrations {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn tables(database: &Database) -> Vec<String> {
    let lines = dump(database).await;
    let tables = lines.into_iter().map(|line| line.line);
    tables.filter(|line| line.contains(" id ")).collect()
}

#[tokio::test]
async fn failed_migration_keeps_those_before_it() {
    let (database, migrations) = (Database::empty().await.unwrap(), Migrations::new());
    migrations.add("first", "create table one (id int)", true);
    migrations.add("second", "create table two (id int); select 1 / 0", true);
    let failed = migrate::run_source(database.url(), migrations.source()).await.unwrap_err();
    let StoreError::Migration { name, .. } = &failed else { panic!("{failed:?}") };
    assert_eq!(name, "2030-01-01-000002_second");
    assert!(!failed.to_string().contains("lock timeout"), "{failed}");
    let tables = tables(&database).await;
    assert_eq!(tables.len(), 1, "{tables:?}");
    let reverted = migrate::revert_source(database.url(), 9, migrations.source()).await.unwrap();
    assert_eq!(reverted, ["2030-01-01-000001_first"]);
}

/// An open transaction reads a table that the migration changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migration_gives_up_a_lock_after_seconds() {
    let (database, migrations) = (Database::empty().await.unwrap(), Migrations::new());
    migrations.add("first", "create table one (id int)", true);
    migrate::run_source(database.url(), migrations.source()).await.unwrap();
    let mut reader = AsyncPgConnection::establish(database.url()).await.unwrap();
    reader.batch_execute("begin; select from one").await.unwrap();
    migrations.add("second", "alter table one add column two int", true);
    let limit = Duration::from_secs(20);
    let run = timeout(limit, migrate::run_source(database.url(), migrations.source()));
    let failed = run.await.expect("the migration does not wait for the transaction").unwrap_err();
    let text = failed.to_string();
    assert!(text.contains("000002_second") && text.contains("pg_stat_activity"), "{text}");
    reader.batch_execute("rollback").await.unwrap();
    let applied = migrate::run_source(database.url(), migrations.source()).await.unwrap();
    assert_eq!(applied, ["2030-01-01-000002_second"]);
}

/// Such a build waits for the transactions of other processes, which may also run the migrations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_runs_build_an_index_concurrently() {
    let (database, migrations) = (Database::empty().await.unwrap(), Migrations::new());
    migrations.add("first", "create table one (id int)", true);
    migrations.add("second", "create index concurrently one_id on one (id)", false);
    let runs = (0..4).map(|_| {
        let (url, source) = (database.url().to_owned(), migrations.source());
        tokio::spawn(async move { migrate::run_source(&url, source).await })
    });
    let mut applied = 0;
    for run in runs.collect::<Vec<_>>() {
        applied += run.await.unwrap().unwrap().len();
    }
    assert_eq!(applied, 2);
    let valid = "do $$ begin
         assert (select indisvalid from pg_index where indexrelid = 'one_id'::regclass); end $$";
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(valid).await.unwrap();
}
