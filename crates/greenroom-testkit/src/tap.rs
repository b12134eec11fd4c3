//! A relay between clients and a server that keeps what the clients say.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    select,
    task::{JoinHandle, JoinSet},
};

use crate::http::Request;

/// What was said so far, by connection.
type Said = Arc<Mutex<Vec<Vec<u8>>>>;

/// A running relay. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Tap {
    address: String,
    said: Said,
    relaying: JoinHandle<()>,
}

impl Tap {
    /// A relay to this `http://host:port`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn to(server: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let said = Said::default();
        let server = server.trim_start_matches("http://").to_owned();
        let relaying = tokio::spawn(relay_all(listener, server, Arc::clone(&said)));
        Ok(Self { address, said, relaying })
    }

    /// Where it listens, `http://…`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Every request so far, in the order of the connections that they came on.
    ///
    /// # Errors
    /// When what was said is no HTTP, or not yet a whole request.
    pub async fn requests(&self) -> Result<Vec<Request>> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut requests = Vec::new();
        for bytes in said {
            let mut bytes = bytes.as_slice();
            while let Some(request) = Request::read(&mut bytes).await? {
                requests.push(request);
            }
        }
        Ok(requests)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.relaying.abort();
    }
}

async fn relay_all(listener: TcpListener, server: String, said: Said) {
    // Dropped, and with it every connection, when this is.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(relay(client, server.clone(), Arc::clone(&said)));
    }
}

async fn relay(mut client: TcpStream, server: String, said: Said) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let connection = {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push(Vec::new());
        said.len() - 1
    };
    let listen = async {
        let mut bytes = [0; 4096];
        loop {
            let read = from_client.read(&mut bytes).await?;
            if read == 0 {
                return Ok(());
            }
            let heard = &bytes[..read];
            said.lock().unwrap_or_else(PoisonError::into_inner)[connection].extend(heard);
            to_server.write_all(heard).await?;
        }
    };
    // A server that closes a connection it has waited on is told to the client, as it would be
    // without us: the next request comes on another one.
    select! {
        ended = listen => ended,
        ended = copy(&mut from_server, &mut to_client) => ended.map(drop),
    }
}
