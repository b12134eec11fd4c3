//! The number of SQL statements per request, counted in PostgreSQL's log.

use diesel::sql_query;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::{Cluster, Database};
use reqwest::Method;
use serde_json::json;

use crate::app::App;

const STARTS: usize = 50;

/// The log lines of this step (`parse`, `bind` or `execute`) of all statements.
fn steps<'a>(log: &'a str, step: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(&format!("  {step} "))).collect()
}

/// Counts the log lines of these steps for requests. The statements of the keeper, and those that
/// open a connection, are not counted.
fn count_for_requests(log: &str, steps_of: &[&str]) -> usize {
    let not_for_requests = [
        "session_bucket(",
        "keeper_",
        ": with renewed as",
        ": with free as",
        "\"sessions\".\"id\", status in (",
        ": select now(), ",
        ": with overdue as",
        ": with batch as",
        ": UPDATE ",
        ": update ",
        ": SET ",
        ": SHOW ",
        ": select set_config(",
    ];
    let is_for_request = |line: &&str| !not_for_requests.iter().any(|text| line.contains(text));
    steps_of.iter().flat_map(|step| steps(log, step)).filter(is_for_request).count()
}

#[tokio::test]
async fn start_takes_one_statement_before_livekit_and_one_after() {
    let cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    // PostgreSQL logs every parse, bind and execute of connections that are opened from now on.
    let log_all = format!("alter database {} set log_min_duration_statement = 0", database.name());
    sql_query(log_all).execute(&mut db).await.unwrap();
    let livekit = Server::shared().await.unwrap();
    let app = App::on(database, livekit, &[("DATABASE_POOL_SIZE", "2")]).await;
    let on_join = app.create_template(json!({"room_creation": "on_join"})).await;
    let on_start = app.create_template(json!({"agent_name": "absent-agent"})).await;
    let template_id = on_join.clone();

    let session = app.start_session(&on_join, json!({})).await.header("location").to_owned();
    app.get(&session).await;
    let before = cluster.output().len();
    for _ in 0..STARTS {
        assert_eq!(app.get(&session).await.status, 200);
    }
    let log = cluster.output().split_off(before);
    let read = count_for_requests(&log, &["execute", "statement:"]);
    assert_eq!(read, STARTS, "reading a session takes one statement:\n{log}");
    assert!(
        count_for_requests(&log, &["parse"]) <= 1,
        "the statement is prepared once per connection"
    );

    // A token refresh and the end of an open session take one statement each.
    let mut sessions = Vec::new();
    for _ in 0..STARTS {
        let started = app.start_session(&on_join, json!({})).await;
        sessions.push(started.header("location").to_owned());
    }
    for (action, column) in [("token", "token_expiry"), ("end", "ended_at")] {
        let before = cluster.output().len();
        for session in &sessions {
            let answer = app.post(&format!("{session}/{action}"), &json!({})).await;
            assert_eq!(answer.status, 200, "{action}: {}", answer.body);
        }
        let log = cluster.output().split_off(before);
        let statement = format!(": with sessions as (update sessions set {column} ");
        let executed = steps(&log, "execute");
        let count = executed.iter().filter(|line| line.contains(&statement)).count();
        assert_eq!(count, STARTS, "{statement}");
        let executed = count_for_requests(&log, &["execute", "statement:"]);
        assert_eq!(executed, STARTS, "there must be no test query, begin or commit:\n{log}");
    }

    for (template, statements) in
        [(on_join, &["with new as ("][..]), (on_start, &["with new as (", "with opened as ("])]
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
            count_for_requests(&log, &["execute", "statement:"]),
            STARTS * statements.len(),
            "there must be no test query, begin or commit:\n{log}"
        );
    }

    // An end user's start that resumes its session takes one statement as well.
    let before = cluster.output().len();
    for _ in 0..STARTS {
        let path = format!("/api/v1/sessions/start?session_template_id={template_id}");
        assert_eq!(app.request_as("ann", Method::POST, &path).await.status, 201);
    }
    let log = cluster.output().split_off(before);
    let executed = count_for_requests(&log, &["execute", "statement:"]);
    assert_eq!(executed, STARTS, "there must be no test query, begin or commit:\n{log}");

    // With a limit, a start locks the organization and inserts in one transaction. The process
    // learns from the first start that the organization has a limit.
    app.set_session_limit("1000").await;
    assert_eq!(app.start_session(&template_id, json!({})).await.status, 201);
    let before = cluster.output().len();
    for _ in 0..STARTS {
        assert_eq!(app.start_session(&template_id, json!({})).await.status, 201);
    }
    let log = cluster.output().split_off(before);
    let executed = count_for_requests(&log, &["execute", "statement:"]);
    assert_eq!(executed, STARTS * 4, "begin, lock, insert, commit:\n{log}");
}
