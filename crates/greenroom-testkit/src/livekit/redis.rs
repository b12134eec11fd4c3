//! The Redis that nodes share, which forgets everything when it is stopped.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    place,
    process::{Guarded, Process},
    tools, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A running Redis. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Redis {
    address: String,
    _process: Process,
}

impl Redis {
    /// Starts one on a free port.
    pub(super) async fn start() -> Result<Self> {
        let program = tools::redis::server()?;
        let home = place::temporary("redis", None)?;
        let port = place::free_tcp_port()?;
        let mut process = Guarded::new("redis-server", program, home.join("redis.log"))
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .in_directory(&home)
            .stopped_by("KILL", Duration::ZERO)
            .removing(home)
            .start()?;
        let address = format!("127.0.0.1:{port}");
        let up = wait_until("Redis to answer", PATIENCE, || {
            let dead = process.has_ended();
            let address = &address;
            async move {
                if dead {
                    Ok(Some(()))
                } else {
                    field(address, "any", "any").await.map(|_| Some(()))
                }
            }
        })
        .await;
        process.check()?;
        up?;
        Ok(Self { address, _process: process })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The field of a hash.
    pub(super) async fn field(&self, hash: &str, field_name: &str) -> Result<Option<String>> {
        field(&self.address, hash, field_name).await
    }
}

/// One question needs no client library.
async fn field(address: &str, hash: &str, field: &str) -> Result<Option<String>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let parts = ["HGET", hash, field].map(|part| format!("${}\r\n{part}\r\n", part.len()));
    let question = format!("*{}\r\n{}", parts.len(), parts.concat());
    stream.write_all(question.as_bytes()).await?;
    let mut head = String::new();
    stream.read_line(&mut head).await?;
    match head.trim_end().strip_prefix('$').map(str::parse::<i64>) {
        Some(Ok(-1)) => Ok(None),
        Some(Ok(length)) => {
            let mut value = vec![0; usize::try_from(length)?];
            stream.read_exact(&mut value).await?;
            Ok(Some(String::from_utf8(value).context("Redis answered no text")?))
        }
        _ => bail!("Redis answered {head:?}"),
    }
}
