//! A server that sends an endless response.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::interval;

/// Starts a server that sends `head` on each connection, and then `part` with these pauses until
/// the client closes the connection. Returns its URL and the number of bytes sent so far.
///
/// # Errors
/// Returns an error if no port is free.
pub async fn endless_server(
    head: &'static [u8],
    part: &'static [u8],
    pause: Duration,
) -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                let _ = connection.read(&mut [0; 4096]).await;
                let _ = connection.write_all(head).await;
                let mut pauses = interval(pause.max(Duration::from_nanos(1)));
                while connection.write_all(part).await.is_ok() {
                    counter.fetch_add(part.len(), Ordering::Relaxed);
                    if !pause.is_zero() {
                        pauses.tick().await;
                    }
                }
            });
        }
    });
    Ok((url, sent))
}
