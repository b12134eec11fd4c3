//! A PostgreSQL that accepts connections but refuses writes: it was demoted to a standby, or its
//! disk is full.

use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_testkit::livekit::Server;
use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::wait_until;
use serde_json::{Value, json};

use crate::app::{App, join_for};

/// A program with an active session.
struct Call {
    app: App,
    /// A template with `room_creation: on_join`.
    on_join: String,
    session: String,
    before: Value,
}

impl Call {
    async fn start(database: Database, changed: &[(&'static str, &str)]) -> Self {
        let changed = [&[("GREENROOM_RECONCILE_SECONDS", "1")], changed].concat();
        let app = App::on(database, Server::shared().await.unwrap(), &changed).await;
        let on_join = app.create_template(json!({"room_creation": "on_join"})).await;
        let template = app.create_template(json!({})).await;
        let started = app.start_session(&template, json!({"user_id": "ann"})).await;
        let session = started.header("location").to_owned();
        join_for(&started.body, Duration::from_secs(20));
        let before = app.wait_for_status(&session, "active", Duration::from_secs(20)).await;
        Self { app, on_join, session, before }
    }

    /// Asserts that a start fails, and that the log contains one of the causes as a warning.
    async fn assert_start_fails(&self, causes: &[&str]) {
        let begun = Instant::now();
        let failed = self.app.start_session(&self.on_join, json!({})).await;
        failed.assert_problem(503, "database_unavailable");
        assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
        let request = failed.header("x-request-id");
        let log = self.app.process.output();
        let is_cause = |line: &str| causes.iter().any(|cause| line.contains(cause));
        let mut warnings =
            log.lines().filter(|line| line.contains(request) && line.contains(" WARN "));
        assert!(warnings.any(is_cause), "the log has no warning with one of {causes:?}:\n{log}");
    }

    /// Asserts that a start fails while PostgreSQL fails the insert of its session, and that starts
    /// recover. `statement` fails in PL/pgSQL. Only the insert meets the error, so that the keeper
    /// does not close the connection before the start uses it.
    async fn assert_failed_insert_is_refused(&self, statement: &str, cause: &str) {
        let url = self.app.database_url();
        let function = format!(
            "create or replace function fail() returns trigger language plpgsql
               set work_mem = '64kB' set temp_file_limit = '64kB'
               as $$ begin {statement}; return new; end $$;
             create trigger fail before insert on sessions for each row execute function fail()"
        );
        execute(url, &function).await;
        self.assert_start_fails(&[cause]).await;
        execute(url, "drop trigger fail on sessions").await;
        self.assert_recovers().await;
    }

    /// Asserts that starts succeed within three seconds, and that the session in progress is
    /// unchanged.
    async fn assert_recovers(&self) {
        wait_until("starts to succeed again", Duration::from_secs(3), async || {
            let started = self.app.start_session(&self.on_join, json!({})).await;
            anyhow::ensure!(started.status == 201, "{}", started.body);
            Ok(Some(()))
        })
        .await
        .unwrap();
        assert_eq!(self.app.get(&self.session).await.body, self.before);
    }

    /// Asserts that the session in progress can still be ended.
    async fn end(&self) {
        let ended = self.app.post(&format!("{}/end", self.session), &json!({})).await;
        assert_eq!(ended.status, 200, "{}", ended.body);
    }
}

async fn execute(url: &str, sql: &str) {
    let mut db = AsyncPgConnection::establish(url).await.unwrap();
    db.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn read_only_server_refuses_starts_until_it_accepts_writes() {
    let cluster = Cluster::temporary().await.unwrap();
    let call = Call::start(Database::fresh_on(&cluster).await.unwrap(), &[]).await;
    let read_only = "raise exception 'cannot execute INSERT in a read-only transaction'
        using errcode = 'read_only_sql_transaction'";
    call.assert_failed_insert_is_refused(read_only, "read-only").await;

    let set = async |value: &str| {
        let url = cluster.url("postgres");
        execute(&url, &format!("alter system set default_transaction_read_only = {value}")).await;
        execute(&url, "select pg_reload_conf()").await;
    };
    set("on").await;
    // A connection in use reads the setting some time after the reload.
    wait_until("starts to be refused", Duration::from_secs(10), async || {
        let started = call.app.start_session(&call.on_join, json!({})).await;
        Ok((started.status != 201).then_some(()))
    })
    .await
    .unwrap();
    // The keeper's failed statements close connections as well, so that this start uses an earlier
    // connection or opens one.
    call.assert_start_fails(&["read-only", "does not allow writes"]).await;
    set("off").await;
    call.assert_recovers().await;
    call.end().await;
    let log = call.app.process.output();
    assert!(
        !log.contains("failed to settle abandoned statement"),
        "the statement has ended: {log}"
    );
}

#[tokio::test]
async fn full_disk_refuses_starts_until_space_is_free() {
    let no_space = |message: &str| {
        format!("raise exception '{message}: No space left on device' using errcode = '53100'")
    };
    // Larger than `temp_file_limit`, which is a message of PostgreSQL itself.
    let sort = "perform count(*) from (select * from generate_series(1, 100000) order by random())
        as sorted";
    let call = Call::start(Database::fresh().await.unwrap(), &[]).await;
    for (statement, cause) in [
        (no_space("could not extend file \"base/5/16402\""), "No space left on device"),
        (no_space("could not write to file \"base/pgsql_tmp/1\""), "No space left on device"),
        (sort.to_owned(), "temporary file size exceeds temp_file_limit"),
    ] {
        call.assert_failed_insert_is_refused(&statement, cause).await;
    }
    call.end().await;
}

#[tokio::test]
async fn promoted_standby_takes_over() {
    let mut primary = Cluster::temporary().await.unwrap();
    let database = Database::fresh_on(&primary).await.unwrap();
    let standby = primary.standby().await.unwrap();
    let host = |cluster: &Cluster| format!("127.0.0.1:{}", cluster.port());
    let both = format!("{},{}", host(&primary), host(&standby));
    let url = database.url().replace(&host(&primary), &both);
    let call = Call::start(database, &[("DATABASE_URL", &url)]).await;
    let id = call.session.rsplit('/').next().unwrap();
    let copied =
        format!("select 1 / count(*) from sessions where id = '{id}' and status = 'active'");
    let standby_url = call.app.database_url().replace(&host(&primary), &host(&standby));
    wait_until("the standby to have the session", Duration::from_secs(10), async || {
        let mut db = AsyncPgConnection::establish(&standby_url).await?;
        Ok(Some(db.batch_execute(&copied).await?))
    })
    .await
    .unwrap();

    primary.kill().await.unwrap();
    // The first start may use a connection that the primary has closed.
    call.assert_start_fails(&[""]).await;
    call.assert_start_fails(&["does not allow writes"]).await;
    standby.promote().await.unwrap();
    call.assert_recovers().await;
    call.end().await;
}
