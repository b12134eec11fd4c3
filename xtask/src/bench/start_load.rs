//! A load of session starts on 64 kept connections, in rounds that alternate with other loads.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::deployment::Deployment;
use super::raw_http::Connection;
use crate::api::ORGANIZATION;

const CONNECTIONS: usize = 64;

/// A kind of start, prepared as one request per connection.
pub struct StartLoad {
    address: String,
    requests: Vec<Vec<u8>>,
}

impl StartLoad {
    /// Plain starts: `on_join`, by a backend, without a limit.
    pub async fn plain(deployment: &Deployment) -> Result<Self> {
        let template = json!({ "name": "Plain", "room_creation": "on_join" });
        let template = deployment.api.create_template(&template).await?;
        Ok(Self::new(deployment, &template, |_| deployment.service.token_of(ORGANIZATION)))
    }

    /// Starts of this template. `token` returns the caller's token for a connection's number.
    pub fn new(deployment: &Deployment, template: &str, token: impl Fn(usize) -> String) -> Self {
        let body = json!({ "session_template_id": template }).to_string();
        let request = |connection| {
            format!(
                "POST /api/v1/sessions/start HTTP/1.1\r\nHost: greenroom\r\n\
                 Content-Type: application/json\r\nAuthorization: Bearer {}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                token(connection),
                body.len()
            )
            .into_bytes()
        };
        let address = deployment.service.address().to_owned();
        Self { address, requests: (0..CONNECTIONS).map(request).collect() }
    }

    /// Opens a connection to the service.
    pub async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.address).await
    }

    /// Returns one of the prepared requests.
    pub fn request(&self, number: usize) -> &[u8] {
        &self.requests[number % self.requests.len()]
    }

    /// Starts sessions for this long and returns the rate in starts per second.
    pub async fn run(&self, duration: Duration) -> Result<f64> {
        self.run_on(self.requests.len(), duration).await
    }

    /// Starts sessions on this number of connections, at most one per prepared request.
    pub async fn run_on(&self, connections: usize, duration: Duration) -> Result<f64> {
        let requests = self.requests.iter().cycle().take(connections);
        let mut connections = Vec::new();
        for request in requests {
            connections.push((self.connect().await?, request.clone()));
        }
        let begun = Instant::now();
        let mut starters = JoinSet::new();
        for (connection, request) in connections {
            starters.spawn(start_until(connection, request, begun + duration));
        }
        let started: Result<Vec<u32>> = starters.join_all().await.into_iter().collect();
        let started: u32 = started?.iter().sum();
        Ok(f64::from(started) / begun.elapsed().as_secs_f64())
    }
}

async fn start_until(mut connection: Connection, request: Vec<u8>, end: Instant) -> Result<u32> {
    let mut started = 0;
    while Instant::now() < end {
        let status = connection.send(&request).await?;
        ensure!(status == 201, "a start returned {status}");
        started += 1;
    }
    Ok(started)
}
