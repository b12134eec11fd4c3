//! How little a start asks of PostgreSQL, as PostgreSQL itself counts it.

use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::{Cluster, Database};
use serde_json::json;

use crate::app::App;

#[derive(QueryableByName, Debug)]
struct Counted {
    #[diesel(sql_type = Text)]
    query: String,
    #[diesel(sql_type = BigInt)]
    calls: i64,
}

/// What was executed in this app's database, and how often.
async fn counted(db: &mut AsyncPgConnection) -> Vec<Counted> {
    sql_query(
        "select query, calls from pg_stat_statements s join pg_database d on d.oid = s.dbid
         where d.datname = current_database() and query not like '%pg_stat_statements%' order by query",
    )
    .load(db)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_start_is_one_statement_before_livekit_and_one_after() {
    let app = App::start().await;
    let on_start = app.template(json!({"agent_name": "nobody-here"})).await;
    let on_join = app.template(json!({"room_creation": "on_join"})).await;
    let mut db = AsyncPgConnection::establish(app.database.url()).await.unwrap();
    sql_query("create extension if not exists pg_stat_statements").execute(&mut db).await.unwrap();
    let reset = "select pg_stat_statements_reset(0, (select oid from pg_database where datname = current_database()), 0)";

    for (template, expected) in [
        (&on_join, vec![("with template", 10)]),
        (&on_start, vec![("update sessions", 10), ("with template", 10)]),
    ] {
        sql_query(reset).execute(&mut db).await.unwrap();
        for _ in 0..10 {
            assert_eq!(app.start_session(template, json!({})).await.status, 201);
        }
        let counted = counted(&mut db).await;
        let seen: Vec<_> = counted
            .iter()
            .map(|counted| (&counted.query[..expected[0].0.len().min(13)], counted.calls))
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(query, calls)| (&query[..13], *calls)).collect();
        assert_eq!(seen, expected, "and no test query, no begin, no commit: {counted:#?}");
    }
}

#[tokio::test]
async fn statements_are_prepared_once_a_connection() {
    let cluster = Cluster::private().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    // From now on the server logs each parse, bind and execution of new connections.
    let log_all = format!("alter database {} set log_min_duration_statement = 0", database.name());
    sql_query(log_all).execute(&mut db).await.unwrap();
    let livekit = Server::shared().await.unwrap();
    let app = App::on(database, livekit, &[("DATABASE_POOL_SIZE", "2")]).await;
    let template = app.template(json!({"agent_name": "nobody-here"})).await;
    for _ in 0..50 {
        assert_eq!(app.start_session(&template, json!({})).await.status, 201);
    }
    let log = cluster.output();
    for statement in ["with template as", "update sessions set"] {
        let logged = |step: &str| {
            log.lines().filter(|line| line.contains(step) && line.contains(statement)).count()
        };
        assert_eq!(logged("  execute "), 50, "{statement}");
        assert!((1..=2).contains(&logged("  parse ")), "{statement}: {}", logged("  parse "));
    }
}
