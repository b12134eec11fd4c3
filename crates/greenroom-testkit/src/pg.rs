//! PostgreSQL clusters for tests, and databases on them.

mod cluster;
mod database;
mod initdb;
mod url;

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

pub use self::cluster::{Cluster, Durability};
pub use self::database::Database;

/// Runs `work` on a separate thread with its own runtime, and blocks until it is done.
///
/// Destructors can therefore call this, and the migrations get the multi-threaded runtime that they
/// need even if the test uses a single-threaded one.
fn block_on_new_runtime<F, T>(work: F) -> Result<T>
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

/// Does the same as [`block_on_new_runtime`] without blocking the caller's runtime.
async fn run_on_new_runtime<F, T>(work: F) -> Result<T>
where
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    spawn_blocking(move || block_on_new_runtime(work)).await
}

async fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a blocking task was cancelled or panicked")?
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("failed to connect to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}
