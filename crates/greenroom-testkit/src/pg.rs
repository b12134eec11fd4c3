//! PostgreSQL for tests: clusters, and databases of their own on them.

mod cluster;
mod database;
mod initdb;
mod url;

pub use cluster::{Cluster, Durability};
pub use database::Database;

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

/// Runs this on a thread and a runtime of its own, blocking.
///
/// So it can be called in destructors, and the migrations get the multi-threaded runtime they need
/// whatever the test's is.
fn apart<F, T>(work: F) -> Result<T>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(work)
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The same without blocking the caller's runtime.
async fn aside<F, T>(work: F) -> Result<T>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    blocking(move || apart(work)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a blocking task was cut off")?
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}
