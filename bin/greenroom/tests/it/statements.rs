//! How little a start asks of PostgreSQL, as PostgreSQL's own log tells it.

use diesel::sql_query;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::{Cluster, Database};
use reqwest::Method;
use serde_json::json;

use crate::app::App;

const STARTS: usize = 50;

/// The lines of a log that tell of this step of any statement.
fn steps<'a>(log: &'a str, step: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(&format!("  {step} "))).collect()
}

/// How many lines of a log tell of such a step for a request. Beside them the keeper asks what is
/// due and writes what follows, and a second connection may be
/// opened for it.
fn for_requests(log: &str, steps_of: &[&str]) -> usize {
    let beside =
        [": with due as", ": with batch as", ": UPDATE ", ": update ", ": SET ", ": SHOW "];
    let is_beside = |line: &&str| beside.iter().any(|text| line.contains(text));
    steps_of.iter().flat_map(|step| steps(log, step)).filter(|line| !is_beside(line)).count()
}

#[tokio::test]
async fn a_start_is_one_statement_before_livekit_and_one_after_and_a_read_is_one() {
    let cluster = Cluster::private().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    // From now on the server logs each parse, bind and execution of new connections.
    let log_all = format!("alter database {} set log_min_duration_statement = 0", database.name());
    sql_query(log_all).execute(&mut db).await.unwrap();
    let livekit = Server::shared().await.unwrap();
    let app = App::on(database, livekit, &[("DATABASE_POOL_SIZE", "2")]).await;
    let on_join = app.template(json!({"room_creation": "on_join"})).await;
    let on_start = app.template(json!({"agent_name": "nobody-here"})).await;
    let limited = on_join.clone();

    let session = app.start_session(&on_join, json!({})).await.header("location").to_owned();
    app.get(&session).await;
    let before = cluster.output().len();
    for _ in 0..STARTS {
        assert_eq!(app.get(&session).await.status, 200);
    }
    let log = cluster.output().split_off(before);
    let read = for_requests(&log, &["execute", "statement:"]);
    assert_eq!(read, STARTS, "to read one is one statement:\n{log}");
    assert!(for_requests(&log, &["parse"]) <= 1, "prepared before, or on the other connection");

    for (template, statements) in
        [(on_join, &["with template as"][..]), (on_start, &["with template as", "with before as"])]
    {
        let before = cluster.output().len();
        for _ in 0..STARTS {
            assert_eq!(app.start_session(&template, json!({})).await.status, 201);
        }
        let log = cluster.output().split_off(before);
        let executed = steps(&log, "execute");
        for statement in statements {
            let count =
                |lines: &[&str]| lines.iter().filter(|line| line.contains(statement)).count();
            assert_eq!(count(&executed), STARTS, "{statement}");
            let parsed = count(&steps(&log, "parse"));
            assert!(parsed <= 2, "{statement} was prepared {parsed} times on two connections");
        }
        assert_eq!(
            for_requests(&log, &["execute", "statement:"]),
            STARTS * statements.len(),
            "no test query, no begin, no commit:\n{log}"
        );
    }

    // An end user's start that finds its session again is one statement, too.
    let before = cluster.output().len();
    for _ in 0..STARTS {
        let path = format!("/api/v1/sessions/start?session_template_id={limited}");
        assert_eq!(app.ask_as("ann", Method::POST, &path).await.status, 201);
    }
    let log = cluster.output().split_off(before);
    let asked = for_requests(&log, &["execute", "statement:"]);
    assert_eq!(asked, STARTS, "no test query, no begin, no commit:\n{log}");

    // An organization with a limit pays one lock, and a transaction around both; who it is has to be
    // learned once.
    app.limit("1000").await;
    assert_eq!(app.start_session(&limited, json!({})).await.status, 201);
    let before = cluster.output().len();
    for _ in 0..STARTS {
        assert_eq!(app.start_session(&limited, json!({})).await.status, 201);
    }
    let log = cluster.output().split_off(before);
    let asked = for_requests(&log, &["execute", "statement:"]);
    assert_eq!(asked, STARTS * 4, "begin, lock, insert, commit:\n{log}");
}
