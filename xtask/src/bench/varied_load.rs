//! A load whose requests differ, on kept connections, in turns that alternate with other loads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::raw_http::Connection;

/// Duration of one turn. The speed of a shared machine drifts within seconds.
const TURN: Duration = Duration::from_millis(500);

/// A request, and the status that the service must return.
pub type Prepared = (Vec<u8>, u16);

/// Returns the request with this number, counted over all connections.
type Next = Arc<dyn Fn(usize) -> Prepared + Send + Sync>;

/// Requests to one service.
pub struct VariedLoad {
    address: String,
    connections: usize,
    next: Next,
}

/// The answers of a turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answers {
    /// Requests that were accepted, per second.
    pub accepted_per_second: f64,
    /// Number of requests that were refused, each with the expected status.
    pub refused: u32,
}

impl VariedLoad {
    pub fn new(
        address: &str,
        connections: usize,
        next: impl Fn(usize) -> Prepared + Send + Sync + 'static,
    ) -> Self {
        Self { address: address.to_owned(), connections, next: Arc::new(next) }
    }

    /// Sends requests for one turn. Fails if a status is not the expected one.
    pub async fn run(&self) -> Result<Answers> {
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(Connection::open(&self.address).await?);
        }
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        for (number, connection) in connections.into_iter().enumerate() {
            let next = self.next.clone();
            clients.spawn(send(connection, next, number, self.connections, begun + TURN));
        }
        let (mut accepted, mut refused) = (0, 0);
        for counts in clients.join_all().await {
            let counts = counts?;
            accepted += counts.0;
            refused += counts.1;
        }
        let accepted_per_second = f64::from(accepted) / begun.elapsed().as_secs_f64();
        Ok(Answers { accepted_per_second, refused })
    }
}

/// Returns the numbers of accepted and of refused requests.
async fn send(
    mut connection: Connection,
    next: Next,
    first: usize,
    step: usize,
    end: Instant,
) -> Result<(u32, u32)> {
    let (mut accepted, mut refused) = (0, 0);
    for number in (first..).step_by(step) {
        if Instant::now() >= end {
            break;
        }
        let (request, expected) = next(number);
        let status = connection.send(&request).await?;
        ensure!(status == expected, "a request returned {status} instead of {expected}");
        if expected < 300 {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    Ok((accepted, refused))
}

/// Returns a start with this body. `headers` are further lines, each with its line end.
pub fn start_request(token: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /api/v1/sessions/start HTTP/1.1\r\nHost: greenroom\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub fn get_request(token: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: greenroom\r\nAuthorization: Bearer {token}\r\n\r\n")
        .into_bytes()
}
