//! Runtimes that end one by one, as those of an HTTP server's workers do, and abandoned work.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use greenroom_core::domain::{SessionId, SessionStatus, WaitCondition, WaitSeconds};
use greenroom_core::{Caller, Error, Greenroom, MemoryRooms, StartRequest, StoreError};
use greenroom_testkit::pg::Database;
use greenroom_testkit::wait_until;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::{STALLED_INSERTS, on_join_template, organization, service};

const TIMEOUT: Duration = Duration::from_secs(10);

fn worker() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn rooms() -> Arc<MemoryRooms> {
    Arc::new(MemoryRooms::default())
}

async fn start_on_join(greenroom: &Greenroom, caller: &Caller) -> SessionId {
    let on_join = on_join_template(greenroom, caller).await;
    greenroom.start(caller, StartRequest::new(on_join)).await.unwrap().session.id
}

/// Waits for the end of a session on two runtimes, and returns how long the second wait takes after
/// the first runtime has ended.
async fn wait_after_first_runtime_ended(database: &Database, greenroom: &Greenroom) -> Duration {
    let caller = Caller::backend(organization());
    let id = start_on_join(greenroom, &caller).await;
    let (first, second) = (worker(), worker());
    let wait = |runtime: &Runtime| {
        let (greenroom, caller) = (greenroom.clone(), caller.clone());
        runtime.spawn(async move {
            let limit = WaitSeconds::constant::<20>();
            greenroom.wait_for_session(&caller, id, WaitCondition::Ended, limit).await
        })
    };
    let first_wait = wait(&first);
    // The first request starts the polling of all requests.
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    let polled = "do $$ begin assert exists (select from pg_stat_activity
         where datname = current_database() and query like '%as requested (organization_id, id)%'
           and pid <> pg_backend_pid()); end $$";
    let polling = async || Ok(db.batch_execute(polled).await.ok());
    wait_until("the first request to be polled", TIMEOUT, polling).await.unwrap();
    let second_wait = wait(&second);
    first.shutdown_background();
    first_wait.await.unwrap_err();
    let ended_at = Instant::now();
    greenroom.end(&caller, id).await.unwrap().unwrap();
    let session = second_wait.await.unwrap().unwrap().unwrap();
    assert_eq!(session.status, SessionStatus::Ended);
    second.shutdown_background();
    ended_at.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_survives_the_runtime_of_the_first_request() {
    let database = Database::fresh().await.unwrap();
    let greenroom = service(&database, &rooms()).build().unwrap();
    let took = wait_after_first_runtime_ended(&database, &greenroom).await;
    assert!(took < Duration::from_secs(1), "the wait took {took:?}");
}

/// Without a runtime of its own, the service polls on that of a request, and must poll again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_is_restarted_after_its_runtime_has_ended() {
    let database = Database::fresh().await.unwrap();
    let builder = service(&database, &rooms());
    let greenroom = std::thread::spawn(|| builder.build().unwrap()).join().unwrap();
    let took = wait_after_first_runtime_ended(&database, &greenroom).await;
    assert!(took < Duration::from_secs(8), "the wait took {took:?}");
}

/// The caller of a start got an error, and the process stops while the insert is still in progress.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_of_timed_out_start_is_over_before_the_process_stops() {
    let database = Database::fresh().await.unwrap();
    let main = worker();
    let builder = service(&database, &rooms());
    let greenroom = main.spawn(async move { builder.build().unwrap() }).await.unwrap();
    let caller = Caller::backend(organization());
    let on_join = on_join_template(&greenroom, &caller).await;
    let mut db = AsyncPgConnection::establish(database.url()).await.unwrap();
    db.batch_execute(STALLED_INSERTS).await.unwrap();

    let error = greenroom.start(&caller, StartRequest::new(on_join)).await.err().unwrap();
    assert!(matches!(error, Error::Store(StoreError::Unavailable(_))), "{error}");
    greenroom.settle_abandoned_work().await;
    main.shutdown_background();

    // PostgreSQL has executed the insert, or never will: the connection was closed.
    let over = "do $$ begin assert (select array_agg(status) from sessions) = '{failed}'; end $$";
    db.batch_execute(over).await.unwrap();
}
