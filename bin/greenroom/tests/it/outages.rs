//! Outages: LiveKit or PostgreSQL is stopped, slow, or sends invalid responses.

use std::time::{Duration, Instant};

use diesel::sql_query;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::{endless_server, ports, wait_until};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

use crate::app::{Answer, App, answer, join_for};

/// Asserts that a start fails with this problem, and that its session is `failed` with
/// `livekit_error`.
async fn assert_start_fails(app: &App, status: u16, code: &str) {
    let template = app.create_template(json!({"agent_name": "greeter"})).await;
    let before = Instant::now();
    app.start_session(&template, json!({})).await.assert_problem(status, code);
    assert!(before.elapsed() < Duration::from_secs(5), "it took {:?}", before.elapsed());
    let sessions = app.get("/api/v1/sessions?limit=1").await.body;
    assert_eq!(
        (&sessions[0]["status"], &sessions[0]["end_reason"]),
        (&json!("failed"), &json!("livekit_error"))
    );
    assert!(sessions[0]["ended_at"].is_string() && sessions[0]["started_at"].is_null());
}

#[tokio::test]
async fn starts_fail_while_livekit_hangs_or_is_stopped() {
    let mut livekit = Server::start().await.unwrap();
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &[]).await;

    livekit.pause().unwrap();
    assert_start_fails(&app, 504, "livekit_timeout").await;
    livekit.resume().unwrap();
    let template = app.create_template(json!({})).await;
    wait_until("LiveKit to open rooms again", Duration::from_secs(10), async || {
        Ok((app.start_session(&template, json!({})).await.status == 201).then_some(()))
    })
    .await
    .unwrap();

    livekit.stop().await.unwrap();
    assert_start_fails(&app, 503, "livekit_unavailable").await;
    let ready = app.get("/readyz").await;
    assert_eq!(ready.status, 200, "a replica without LiveKit is ready");
    assert_ne!(ready.body["checks"]["livekit"], "ok");
}

#[tokio::test]
async fn token_only_start_succeeds_without_livekit() {
    let mut livekit = Server::start().await.unwrap();
    let changed = [("GREENROOM_ON_LIVEKIT_DOWN", "token_only")];
    let app = App::on(Database::fresh().await.unwrap(), &livekit, &changed).await;
    let open = app.create_template(json!({"agent_name": "greeter"})).await;
    let private = app
        .create_template(json!({"agent_name": "greeter", "agent_metadata": {"voice": "low"}}))
        .await;
    livekit.stop().await.unwrap();
    let private = app.start_session(&private, json!({})).await;
    private.assert_problem(503, "livekit_unavailable");
    let private = app.start_session(&open, json!({"metadata": {"order": 42}})).await;
    private.assert_problem(503, "livekit_unavailable");

    let started = app.start_session(&open, json!({"user_id": "ann"})).await;
    assert_eq!(started.status, 201, "{}", started.body);
    let session = app.get(started.header("location")).await.body;
    assert_eq!(
        (&session["status"], &session["agent_status"]),
        (&json!("pending"), &json!("waiting"))
    );
    livekit.restart().await.unwrap();
    // The join opens the room and requests the agent.
    assert!(join_for(&started.body, Duration::from_secs(3)).await.unwrap().unwrap().connected);
    let room = started.body["room_name"].as_str().unwrap();
    let dispatches = livekit.dispatches(room).await.unwrap();
    assert!(dispatches.iter().any(|dispatch| dispatch.agent_name == "greeter"), "{dispatches:?}");
}

#[tokio::test]
async fn invalid_responses_of_livekit_fail_the_start() {
    let room = b"\n\x04evil".to_vec();
    for (response, status, code) in [
        (ResponseTemplate::new(200), 502, "livekit_error"),
        (
            ResponseTemplate::new(200).set_body_bytes(b"\xff\xff<html>".to_vec()),
            502,
            "livekit_error",
        ),
        (
            ResponseTemplate::new(200)
                .set_body_raw([&b"\x12"[..], &room[1..]].concat(), "application/protobuf"),
            502,
            "livekit_error",
        ),
        (
            ResponseTemplate::new(200).set_body_raw("<html>Welcome</html>", "text/html"),
            502,
            "livekit_error",
        ),
        (
            ResponseTemplate::new(200).set_body_raw(vec![0; 9 << 20], "application/protobuf"),
            502,
            "livekit_error",
        ),
        (ResponseTemplate::new(302).insert_header("location", "/elsewhere"), 502, "livekit_error"),
        (ResponseTemplate::new(500).set_body_string("oops"), 502, "livekit_error"),
        (ResponseTemplate::new(404), 502, "livekit_error"),
        (ResponseTemplate::new(503).set_body_string("no upstream"), 503, "livekit_unavailable"),
        (ResponseTemplate::new(429), 503, "livekit_unavailable"),
        (ResponseTemplate::new(200).set_delay(Duration::from_secs(30)), 504, "livekit_timeout"),
    ] {
        let livekit = MockServer::start().await;
        Mock::given(matchers::any()).respond_with(response).mount(&livekit).await;
        let app = App::with(&[("LIVEKIT_API_URL", &livekit.uri())]).await;
        assert_start_fails(&app, status, code).await;
    }
}

/// Starts a server that sends these bytes to every connection repeatedly, until the connection
/// closes.
async fn repeating_server(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = connection.read(&mut [0; 4096]).await;
                while connection.write_all(bytes).await.is_ok() {}
            });
        }
    });
    address
}

#[tokio::test]
async fn server_other_than_livekit_fails_the_start() {
    const ENDLESS: &[u8] =
        b"HTTP/1.1 200 OK\r\n\r\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    for bytes in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\x00\x01garbage\r\n", ENDLESS] {
        let app = App::with(&[("LIVEKIT_API_URL", &repeating_server(bytes).await)]).await;
        assert_start_fails(&app, 502, "livekit_error").await;
        let ready = app.get("/readyz").await;
        assert_eq!(ready.status, 200, "a replica without LiveKit is ready");
        assert_ne!(ready.body["checks"]["livekit"], "ok");
        let kilobytes = app.anonymous_kilobytes();
        assert!(
            kilobytes < 60 * 1024,
            "the process holds {kilobytes} kB: does it keep the response?"
        );
    }
}

#[tokio::test]
async fn incomplete_response_of_livekit_counts_as_unavailable() {
    const HALF: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: 90\r\n\r\n\x12";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(HALF).await;
        }
    });
    let app = App::with(&[("LIVEKIT_API_URL", &address)]).await;
    assert_start_fails(&app, 503, "livekit_unavailable").await;
}

#[tokio::test]
async fn livekit_that_sends_one_byte_per_second_times_out() {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: 90\r\n\r\n";
    let (url, _) = endless_server(HEAD, b"\n", Duration::from_secs(1)).await.unwrap();
    let app = App::with(&[("LIVEKIT_API_URL", &url)]).await;
    assert_start_fails(&app, 504, "livekit_timeout").await;
    let log = app.process.output();
    let line = log.lines().find(|line| line.contains("failed to open room")).unwrap();
    assert!(line.contains("LiveKit did not respond in time"), "{line}");
}

#[tokio::test]
async fn start_fails_within_five_seconds_if_livekit_and_postgres_hang() {
    let livekit = Server::start().await.unwrap();
    let cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let app = App::on(database, &livekit, &[]).await;
    let template = app.create_template(json!({})).await;
    livekit.pause().unwrap();
    let before = Instant::now();
    let start = app.start_session(&template, json!({}));
    let hang = async {
        wait_until("the session to be written", Duration::from_secs(2), async || {
            let sessions = app.get("/api/v1/sessions").await.body;
            Ok((sessions.as_array().map(Vec::len) == Some(1)).then_some(()))
        })
        .await
        .unwrap();
        cluster.pause().unwrap();
    };
    let (answer, ()) = tokio::join!(start, hang);
    answer.assert_problem(504, "livekit_timeout");
    assert!(before.elapsed() < Duration::from_secs(5), "it took {:?}", before.elapsed());
    cluster.resume().unwrap();
}

#[tokio::test]
async fn requests_without_free_connection_are_refused_as_overloaded() {
    let database = Database::fresh().await.unwrap();
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let livekit = Server::shared().await.unwrap();
    let app = App::on(database, livekit, &[("DATABASE_POOL_SIZE", "2")]).await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    sql_query("begin").execute(&mut db).await.unwrap();
    sql_query("lock table sessions in access exclusive mode").execute(&mut db).await.unwrap();
    let starts = (0..4).map(|_| app.start_session(&template, json!({})));
    let answers = futures_util::future::join_all(starts).await;
    let codes: Vec<_> = answers.iter().map(Answer::code).collect();
    assert!(codes.contains(&"overloaded"), "{codes:?}");
    for answer in &answers {
        answer.assert_problem(503, answer.code());
    }
    sql_query("rollback").execute(&mut db).await.unwrap();
    // The canceled statements still hold their connections for a moment.
    wait_until("a start to succeed", Duration::from_secs(2), async || {
        let status = app.start_session(&template, json!({})).await.status;
        Ok((status == 201).then_some(()))
    })
    .await
    .unwrap();
    assert!(app.process.output().contains("refused request"), "the log reports it");
}

#[tokio::test]
async fn on_start_calls_livekit_once_and_on_join_never() {
    let livekit = MockServer::start().await;
    let created = |request: &wiremock::Request| {
        // The name is field 1 of the request and field 2 of the room (protobuf).
        let length = usize::from(request.body[1]);
        let mut room = request.body[..length + 2].to_vec();
        room[0] = 0x12;
        ResponseTemplate::new(200).set_body_raw(room, "application/protobuf")
    };
    let calls =
        Mock::given(matchers::path("/twirp/livekit.RoomService/CreateRoom")).respond_with(created);
    livekit.register(calls.expect(3)).await;
    let app = App::with(&[("LIVEKIT_API_URL", &livekit.uri())]).await;
    let on_start = app.create_template(json!({"agent_name": "greeter"})).await;
    let on_join =
        app.create_template(json!({"agent_name": "greeter", "room_creation": "on_join"})).await;
    for _ in 0..3 {
        assert_eq!(app.start_session(&on_start, json!({})).await.status, 201);
        assert_eq!(app.start_session(&on_join, json!({})).await.status, 201);
    }
    livekit.verify().await;
    assert_eq!(livekit.received_requests().await.unwrap().len(), 3, "no other call");
}

#[tokio::test]
async fn wrong_livekit_key_fails_the_start() {
    let app = App::with(&[("LIVEKIT_API_SECRET", "a secret LiveKit has never heard of")]).await;
    assert_start_fails(&app, 502, "livekit_error").await;
    let ready = app.get("/readyz").await;
    assert!(
        ready.body["checks"]["livekit"].as_str().unwrap().contains("check its API key"),
        "{}",
        ready.body
    );
}

#[tokio::test]
async fn requests_fail_while_postgres_is_stopped_or_hangs_and_recover() {
    let mut cluster = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&cluster).await.unwrap();
    let app = App::on(database, Server::shared().await.unwrap(), &[]).await;
    let template = app.create_template(json!({"room_creation": "on_join"})).await;
    assert_eq!(app.start_session(&template, json!({})).await.status, 201);

    cluster.stop().await.unwrap();
    app.start_session(&template, json!({})).await.assert_problem(503, "database_unavailable");
    app.get("/api/v1/sessions").await.assert_problem(503, "database_unavailable");
    let ready = answer(app.request(Method::GET, "/readyz")).await;
    ready.assert_problem(503, "not_ready");
    assert_ne!(ready.body["checks"]["database"], "ok");

    cluster.start().await.unwrap();
    let restarted = Instant::now();
    wait_until("starts to succeed again", Duration::from_secs(10), async || {
        Ok((app.start_session(&template, json!({})).await.status == 201).then_some(()))
    })
    .await
    .unwrap();
    assert!(
        restarted.elapsed() < Duration::from_secs(2),
        "recovered after {:?}",
        restarted.elapsed()
    );

    cluster.pause().unwrap();
    let before = Instant::now();
    let answers =
        [app.start_session(&template, json!({})).await, app.get("/api/v1/sessions").await];
    assert!(before.elapsed() < Duration::from_secs(12), "two requests took {:?}", before.elapsed());
    for answer in answers {
        answer.assert_problem(503, "database_unavailable");
    }
    cluster.resume().unwrap();
    assert_eq!(app.start_session(&template, json!({})).await.status, 201);
}

#[tokio::test]
async fn database_without_schema_is_not_ready() {
    let database = Database::empty().await.unwrap();
    let app = App::on(database, Server::shared().await.unwrap(), &[]).await;
    let ready = app.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["checks"]["database"]), (503, &json!("ok")));
    let check = ready.body["checks"]["migrations"].as_str().unwrap();
    assert!(check.contains("create_sessions") && check.contains("greenroom migrate"), "{check}");

    let failed = app.get("/api/v1/sessions").await;
    failed.assert_problem(500, "internal");
    assert!(!failed.body.to_string().contains("relation"), "the cause is in the body");
    let request = failed.body["request_id"].as_str().unwrap();
    let log = app.process.output();
    let cause = log.lines().find(|line| line.contains(request) && line.contains("ERROR")).unwrap();
    assert!(cause.contains("\"sessions\" does not exist"), "{cause}");
}

#[tokio::test]
async fn unreachable_database_is_reported_without_its_password() {
    let port = ports::free_tcp_port().unwrap();
    let nowhere = format!("postgres://greenroom:s3cret-password@127.0.0.1:{port}/greenroom");
    let app = App::with(&[("DATABASE_URL", &nowhere), ("GREENROOM_LOG", "trace")]).await;
    app.get("/api/v1/sessions").await.assert_problem(503, "database_unavailable");
    assert!(!app.process.output().contains("s3cret-password"), "the log contains the password");
}
