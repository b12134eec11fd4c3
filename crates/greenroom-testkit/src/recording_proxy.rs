//! A TCP proxy in front of a server that records the HTTP requests of the clients.

use std::io;
use std::sync::Arc;

use anyhow::Result;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::{JoinHandle, JoinSet};

use crate::http::Request;

/// The bytes that the clients have sent so far, one entry per connection.
type Recording = Arc<Mutex<Vec<Vec<u8>>>>;

/// A running proxy. Dropping it closes all connections.
#[derive(Debug)]
pub struct RecordingProxy {
    address: String,
    recording: Recording,
    accept_task: JoinHandle<()>,
}

impl RecordingProxy {
    /// Starts a proxy to `server`, an `http://host:port`.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub async fn start(server: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let recording = Recording::default();
        let server = server.trim_start_matches("http://").to_owned();
        let accept_task = tokio::spawn(accept_clients(listener, server, Arc::clone(&recording)));
        Ok(Self { address, recording, accept_task })
    }

    /// Returns the proxy's own address, `http://host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns all requests so far, in the order of their connections.
    ///
    /// # Errors
    /// Returns an error if a client has sent something other than HTTP or only part of a request.
    pub async fn requests(&self) -> Result<Vec<Request>> {
        let recording = self.recording.lock().clone();
        let mut requests = Vec::new();
        for bytes in recording {
            let mut bytes = bytes.as_slice();
            while let Some(request) = Request::read(&mut bytes).await? {
                requests.push(request);
            }
        }
        Ok(requests)
    }
}

impl Drop for RecordingProxy {
    fn drop(&mut self) {
        self.accept_task.abort();
    }
}

async fn accept_clients(listener: TcpListener, server: String, recording: Recording) {
    // Aborting this task drops the set, which aborts the connections.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(forward(client, server.clone(), Arc::clone(&recording)));
    }
}

async fn forward(mut client: TcpStream, server: String, recording: Recording) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let connection = {
        let mut recording = recording.lock();
        recording.push(Vec::new());
        recording.len() - 1
    };
    let record = async {
        let mut buffer = [0; 4096];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let bytes = &buffer[..read];
            recording.lock()[connection].extend(bytes);
            to_server.write_all(bytes).await?;
        }
    };
    // When the server closes an idle connection, close the client's connection as well. The client
    // then opens a new connection for its next request, as it would without the proxy.
    select! {
        ended = record => ended,
        ended = copy(&mut from_server, &mut to_client) => ended.map(drop),
    }
}
