//! The end of the process, and of connections: what has begun comes to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::QueryableByName;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
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
async fn no_start_is_lost_when_the_process_is_asked_to_stop() {
    for signal in ["TERM", "INT"] {
        let database = Database::fresh().await.unwrap();
        let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
        let app = Arc::new(App::on(database, Server::shared().await.unwrap(), &[]).await);
        let template = app.template(json!({"room_creation": "on_join"})).await;
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
                    // Refused, or closed before it was read: then nothing has begun.
                    let Ok(response) = request.send().await else { return };
                    // A machine that is busy enough makes it say so.
                    let counted = match response.status().as_u16() {
                        201 => &acknowledged,
                        status => {
                            assert_eq!(status, 503);
                            &refused
                        }
                    };
                    response.bytes().await.expect("an answer that has begun comes to its end");
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let starters: Vec<_> = starters.collect();
        wait_until("the load", Duration::from_secs(20), async || {
            Ok((AtomicUsize::load(&acknowledged, Ordering::SeqCst) > 200).then_some(()))
        })
        .await
        .unwrap();
        app.process.signal(signal).unwrap();
        let asked = Instant::now();
        for starter in starters {
            starter.await.unwrap();
        }
        wait_until("the process to end", Duration::from_secs(10), async || {
            Ok(app.process.output().contains("stopped").then_some(()))
        })
        .await
        .unwrap();
        assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
        let acknowledged = AtomicUsize::load(&acknowledged, Ordering::SeqCst);
        let refused = AtomicUsize::load(&refused, Ordering::SeqCst);
        // What was refused may have been written at the last moment.
        let known = acknowledged..=acknowledged + refused;
        assert!(known.contains(&count(&mut db).await), "{signal}: {known:?}");
    }
}

/// Sends a request and reads no answer.
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

/// Resets a connection, as the end of a client does that was killed: actix-web then drops the
/// handler where it stands.
fn reset(connection: TcpStream) {
    connection.set_zero_linger().unwrap();
    drop(connection);
}

#[tokio::test]
async fn a_start_whose_client_is_gone_comes_to_its_end() {
    let livekit = Server::start().await.unwrap();
    let database = Database::fresh().await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let app = App::on(database, &livekit, &[]).await;
    let template = app.template(json!({})).await;
    livekit.pause().unwrap();
    let body = json!({"session_template_id": template}).to_string();
    let connection = send(&app, "/api/v1/sessions/start", &body).await;
    let mut is = async |status: &str| {
        wait_until(status, Duration::from_secs(8), async || {
            let found: Vec<Status> = sql_query("select status from sessions").load(&mut db).await?;
            Ok(found.iter().any(|session| session.status == status).then_some(()))
        })
        .await
    };
    is("pending").await.unwrap();
    reset(connection);
    is("failed").await.unwrap();
}

#[tokio::test]
async fn a_write_whose_client_is_gone_leaves_no_transaction_open() {
    let database = Database::fresh().await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let mut watch = AsyncPgConnection::establish(database.url()).await.unwrap();
    let app = App::on(database, Server::shared().await.unwrap(), &[]).await;
    let waiting = "select count(*) from pg_stat_activity
                   where application_name = 'greenroom' and datname = current_database()
                     and (state like 'idle in transaction%' or wait_event_type = 'Lock')";
    let mut held = async || {
        let count: Count = sql_query(waiting).get_result(&mut watch).await?;
        Ok::<_, anyhow::Error>(count.count)
    };
    sql_query("begin").execute(&mut db).await.unwrap();
    sql_query("lock table session_templates in share row exclusive mode")
        .execute(&mut db)
        .await
        .unwrap();
    let connection = send(&app, "/api/v1/session-templates", "{\"name\": \"Lost\"}").await;
    wait_until("the insert to wait for the lock", Duration::from_secs(5), async || {
        Ok((held().await? > 0).then_some(()))
    })
    .await
    .unwrap();
    reset(connection);
    sql_query("rollback").execute(&mut db).await.unwrap();
    wait_until("nothing to be left open", Duration::from_secs(4), async || {
        Ok((held().await? == 0).then_some(()))
    })
    .await
    .unwrap();
    let created = app.post("/api/v1/session-templates", &json!({"name": "Found"})).await;
    assert_eq!(created.status, 201, "{}", created.body);
}
