//! The Redis that the nodes of a cluster share. It keeps its data in memory only.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::process::{GuardedCommand, Process};
use crate::{paths, ports, tools, wait_until};

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running Redis. Dropping it stops the server.
#[derive(Debug)]
pub(super) struct Redis {
    address: String,
    _process: Process,
}

impl Redis {
    /// Starts a Redis on a free port.
    pub(super) async fn start() -> Result<Self> {
        let program = tools::redis::server()?;
        let directory = paths::create_temp_dir("redis", None)?;
        let port = ports::free_tcp_port()?;
        let mut process = GuardedCommand::new("redis-server", program, directory.join("redis.log"))
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(&directory)
            .stop_signal("KILL", Duration::ZERO)
            .remove_on_stop(directory)
            .start()?;
        let address = format!("127.0.0.1:{port}");
        let ready = wait_until("Redis to respond", START_TIMEOUT, || {
            let has_exited = process.has_exited();
            let address = &address;
            async move {
                if has_exited {
                    Ok(Some(()))
                } else {
                    hash_field(address, "any", "any").await.map(|_| Some(()))
                }
            }
        })
        .await;
        process.ensure_running()?;
        ready?;
        Ok(Self { address, _process: process })
    }

    /// Returns the `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Returns a field of a hash. `None` means that the field or the hash does not exist.
    pub(super) async fn hash_field(&self, hash: &str, field: &str) -> Result<Option<String>> {
        hash_field(&self.address, hash, field).await
    }
}

/// Sends one `HGET` in the Redis protocol (RESP). A client library is not worth it for one command.
async fn hash_field(address: &str, hash: &str, field: &str) -> Result<Option<String>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let parts = ["HGET", hash, field].map(|part| format!("${}\r\n{part}\r\n", part.len()));
    let command = format!("*{}\r\n{}", parts.len(), parts.concat());
    stream.write_all(command.as_bytes()).await?;
    let mut head = String::new();
    stream.read_line(&mut head).await?;
    match head.trim_end().strip_prefix('$').map(str::parse::<i64>) {
        Some(Ok(-1)) => Ok(None),
        Some(Ok(length)) => {
            let mut value = vec![0; usize::try_from(length)?];
            stream.read_exact(&mut value).await?;
            Ok(Some(String::from_utf8(value).context("the response of Redis is not UTF-8")?))
        }
        _ => bail!("unexpected response of Redis: {head:?}"),
    }
}
