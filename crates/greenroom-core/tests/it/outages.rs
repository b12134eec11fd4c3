//! A slow or partly broken database: it affects only the work that needs the broken part.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{EndReason, PageLimit, SessionId, SessionStatus, SessionTemplateId};
use greenroom_core::{
    Caller, Config, Error, Greenroom, MemoryRooms, PageRequest, SessionFilter, StartRequest,
    StoreError,
};
use greenroom_testkit::pg::{Cluster, Database};
use greenroom_testkit::wait_until;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{STALLED_INSERTS, config, on_join_template, organization};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A service with rooms in memory and one `on_join` template.
struct Service {
    greenroom: Greenroom,
    caller: Caller,
    template: SessionTemplateId,
}

impl Service {
    async fn start(config: Config) -> Self {
        let rooms = Arc::new(MemoryRooms::default());
        let greenroom = Greenroom::builder(config).rooms(rooms).build().unwrap();
        let caller = Caller::backend(organization());
        let template = on_join_template(&greenroom, &caller).await;
        Self { greenroom, caller, template }
    }

    async fn start_session(&self) -> Result<SessionId, Error> {
        let request = StartRequest::new(self.template);
        Ok(self.greenroom.start(&self.caller, request).await?.session.id)
    }
}

/// Connects to the database and executes these statements. Their transaction stays open until the
/// connection is dropped.
async fn execute(database: &Database, sql: &str) -> AsyncPgConnection {
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(sql).await.unwrap();
    db
}

/// A start whose caller got an error because its commit took too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_of_timed_out_start_is_over_within_two_seconds() {
    let database = Database::fresh().await.unwrap();
    let service = Service::start(config(&database)).await;
    execute(&database, STALLED_INSERTS).await;

    let error = service.start_session().await.err().unwrap();

    assert!(matches!(error, Error::Store(StoreError::Unavailable(_))), "{error}");
    let over = wait_until("the session to be over", TIMEOUT, async || {
        let page = PageRequest::first(PageLimit::constant::<10>());
        let Service { greenroom, caller, .. } = &service;
        let sessions = greenroom.sessions(caller, SessionFilter::default(), page).await?.items;
        Ok(sessions.first().filter(|one| one.status == SessionStatus::Failed).cloned())
    });
    let over = over.await.unwrap();
    assert_eq!(over.end_reason, Some(EndReason::LiveKitError.into()));
    // The start was refused after 3.5 s.
    let took = over.ended_at.unwrap() - over.created_at;
    assert!(took < TimeDelta::milliseconds(5_500), "the session was over after {took}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_requests_leave_connections_for_starts() {
    let database = Database::fresh().await.unwrap();
    let service = Service::start(config(&database)).await;
    let id = service.start_session().await.unwrap();
    let _locked = execute(&database, "begin; lock table session_events").await;

    let mut timelines = JoinSet::new();
    for _ in 0..64 {
        let (greenroom, caller) = (service.greenroom.clone(), service.caller.clone());
        timelines.spawn(async move { greenroom.timeline(&caller, id).await });
    }
    let begun = Instant::now();
    wait_until("a request to be refused", TIMEOUT, async || Ok(timelines.try_join_next()))
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for _ in 0..20 {
        service.start_session().await.unwrap();
    }
    assert!(!timelines.is_empty(), "the other requests still wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_host_does_not_delay_starts_on_next_host() {
    let (hanging, healthy) = tokio::join!(Cluster::temporary(), Cluster::temporary());
    let (hanging, healthy) = (hanging.unwrap(), healthy.unwrap());
    let database = Database::fresh_on(&healthy).await.unwrap();
    hanging.pause().unwrap();
    let host = |cluster: &Cluster| format!("127.0.0.1:{}", cluster.port());
    let both = format!("{},{}", host(&hanging), host(&healthy));
    let url = database.url().replace(&host(&healthy), &both);
    assert!(url.contains(&both), "{url}");
    let mut config = config(&database);
    config.database_url = url.parse().unwrap();

    // The first statement opens the connection.
    let begun = Instant::now();
    let service = Service::start(config).await;
    service.start_session().await.unwrap();

    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    hanging.resume().unwrap();
}

/// PostgreSQL shuts down, or an operator ends the session. The message may be in any language.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_connection_counts_as_unavailable() {
    let database = Database::fresh().await.unwrap();
    let service = Service::start(config(&database)).await;
    let mut db = execute(&database, "begin; lock table sessions").await;
    let terminate = async {
        let terminated =
            "do $$ begin assert (select bool_and(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'); end $$";
        let mut other = AsyncPgConnection::establish(database.url()).await.unwrap();
        wait_until("the start to be terminated", TIMEOUT, async || {
            Ok(other.batch_execute(terminated).await.ok())
        })
        .await
        .unwrap();
    };
    let (started, ()) = tokio::join!(service.start_session(), terminate);
    let error = started.err().unwrap();
    assert!(matches!(error, Error::Store(StoreError::Unavailable(_))), "{error:?}");
    db.batch_execute("rollback").await.unwrap();
    service.start_session().await.unwrap();
}

/// The server was demoted to a standby after a failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_on_read_only_server_was_not_executed() {
    let database = Database::fresh().await.unwrap();
    let service = Service::start(config(&database)).await;
    execute(
        &database,
        "create function refuse() returns trigger language plpgsql as
           $$ begin raise 'schreibgeschützt' using errcode = '25006'; end $$;
         create trigger refuse before insert on sessions for each row execute function refuse()",
    )
    .await;
    let error = service.start_session().await.err().unwrap();
    let Error::Store(error @ StoreError::Refused(_)) = error else { panic!("{error:?}") };
    assert!(!error.is_outcome_unknown());
}

/// More rows than one batch contains have a status that only the next version knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_rows_do_not_starve_other_sessions() {
    let database = Database::fresh().await.unwrap();
    let service = Service::start(config(&database)).await;
    for _ in 0..600 {
        service.start_session().await.unwrap();
    }
    let healthy = service.start_session().await.unwrap();
    let sql = format!(
        "do $$ declare name text; begin
           for name in select conname from pg_constraint
             where conrelid = 'sessions'::regclass and contype = 'c' loop
             execute format('alter table sessions drop constraint %I', name);
           end loop;
         end $$;
         update sessions set status = 'dreaming', next_check_at = now() - interval '1 hour'
           where id <> '{healthy}';
         update sessions set join_by = now(), next_check_at = now() where id = '{healthy}'"
    );
    execute(&database, &sql).await;

    let stop = Notify::new();
    let check = async {
        let expired = wait_until("the healthy session to expire", TIMEOUT, async || {
            let session = service.greenroom.session(&service.caller, healthy).await?;
            Ok(session.filter(|session| session.status == SessionStatus::Expired))
        });
        expired.await.unwrap();
        stop.notify_one();
    };
    tokio::join!(check, service.greenroom.run_keeper(stop.notified()));
}
