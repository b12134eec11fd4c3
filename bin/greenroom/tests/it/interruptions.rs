//! Interruptions: a shutdown of the process, and clients that disconnect during a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::App;

const CONNECTIONS: usize = 16;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Status {
    #[diesel(sql_type = Text)]
    status: String,
}

async fn count(db: &mut AsyncPgConnection) -> usize {
    let count: Count = sql_query("select count(*) from sessions").get_result(db).await.unwrap();
    usize::try_from(count.count).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_loses_no_acknowledged_start() {
    for signal in ["TERM", "INT"] {
        let database = Database::fresh().await.unwrap();
        let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
        let app = Arc::new(App::on(database, Server::shared().await.unwrap(), &[]).await);
        let template = app.create_template(json!({"room_creation": "on_join"})).await;
        let (acknowledged, refused) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let starters = (0..CONNECTIONS).map(|_| {
            let (app, template) = (app.clone(), template.clone());
            let (acknowledged, refused) = (acknowledged.clone(), refused.clone());
            tokio::spawn(async move {
                let url = format!("{}/api/v1/sessions/start", app.address);
                let body = json!({"session_template_id": template});
                loop {
                    let request = app.client.post(&url).bearer_auth(app.token()).json(&body);
                    // An error means that the server did not read the request.
                    let Ok(response) = request.send().await else { return };
                    // On a busy machine the process responds with 503 `overloaded`.
                    let counted = match response.status().as_u16() {
                        201 => &acknowledged,
                        status => {
                            assert_eq!(status, 503);
                            &refused
                        }
                    };
                    response.bytes().await.expect("a response is never cut off");
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let starters: Vec<_> = starters.collect();
        wait_until("200 starts", Duration::from_secs(20), async || {
            Ok((AtomicUsize::load(&acknowledged, Ordering::SeqCst) > 200).then_some(()))
        })
        .await
        .unwrap();
        app.process.signal(signal).unwrap();
        let signaled = Instant::now();
        for starter in starters {
            starter.await.unwrap();
        }
        wait_until("the process to stop", Duration::from_secs(10), async || {
            Ok(app.process.output().contains("stopped").then_some(()))
        })
        .await
        .unwrap();
        assert!(signaled.elapsed() < Duration::from_secs(5), "it took {:?}", signaled.elapsed());
        let acknowledged = AtomicUsize::load(&acknowledged, Ordering::SeqCst);
        let refused = AtomicUsize::load(&refused, Ordering::SeqCst);
        // A refused start may still have been written.
        let expected = acknowledged..=acknowledged + refused;
        assert!(expected.contains(&count(&mut db).await), "{signal}: {expected:?}");
    }
}

/// Sends a request without reading the response.
async fn send(app: &App, path: &str, body: &str) -> TcpStream {
    let address = app.address.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        app.token(),
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

/// Resets a connection, like a client that is killed. actix-web then drops the handler.
fn reset(connection: TcpStream) {
    connection.set_zero_linger().unwrap();
    drop(connection);
}

#[tokio::test]
async fn start_finishes_after_client_disconnects() {
    let livekit = Server::start().await.unwrap();
    let database = Database::fresh().await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let app = App::on(database, &livekit, &[]).await;
    let template = app.create_template(json!({})).await;
    livekit.pause().unwrap();
    let body = json!({"session_template_id": template}).to_string();
    let connection = send(&app, "/api/v1/sessions/start", &body).await;
    let mut wait_for_status = async |status: &str| {
        wait_until(status, Duration::from_secs(8), async || {
            let found: Vec<Status> = sql_query("select status from sessions").load(&mut db).await?;
            Ok(found.iter().any(|session| session.status == status).then_some(()))
        })
        .await
    };
    wait_for_status("pending").await.unwrap();
    reset(connection);
    wait_for_status("failed").await.unwrap();
}

#[tokio::test]
async fn disconnected_client_leaves_no_open_transaction() {
    let database = Database::fresh().await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let mut watch = AsyncPgConnection::establish(database.url()).await.unwrap();
    let app = App::on(database, Server::shared().await.unwrap(), &[]).await;
    let open_transactions = "select count(*) from pg_stat_activity
                   where application_name = 'greenroom' and datname = current_database()
                     and (state like 'idle in transaction%' or wait_event_type = 'Lock')";
    let mut count_open = async || {
        let count: Count = sql_query(open_transactions).get_result(&mut watch).await?;
        Ok::<_, anyhow::Error>(count.count)
    };
    sql_query("begin").execute(&mut db).await.unwrap();
    sql_query("lock table session_templates in share row exclusive mode")
        .execute(&mut db)
        .await
        .unwrap();
    let connection = send(&app, "/api/v1/session-templates", "{\"name\": \"Lost\"}").await;
    wait_until("the insert to wait for the lock", Duration::from_secs(5), async || {
        Ok((count_open().await? > 0).then_some(()))
    })
    .await
    .unwrap();
    reset(connection);
    sql_query("rollback").execute(&mut db).await.unwrap();
    wait_until("the transaction to be closed", Duration::from_secs(4), async || {
        Ok((count_open().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    let created = app.post("/api/v1/session-templates", &json!({"name": "Found"})).await;
    assert_eq!(created.status, 201, "{}", created.body);
}
