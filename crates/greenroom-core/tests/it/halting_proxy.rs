//! A proxy before PostgreSQL that stops at one statement of its client, as if the client died there.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// Where the client dies: at an execution of a statement, before PostgreSQL receives it or after
/// PostgreSQL has committed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// A part of the statement's text.
    pub statement: &'static str,
    /// Which execution, from 1.
    pub execution: usize,
    pub is_before: bool,
}

/// A running proxy. Dropping it closes all connections.
pub struct HaltingProxy {
    pub url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    point: CrashPoint,
    executions: AtomicUsize,
    is_halted: AtomicBool,
    /// The client has reached the crash point.
    halted: Notify,
    /// The held statement may be executed.
    delivery: Notify,
    /// PostgreSQL has responded to the held statement.
    replied: Notify,
    reply: Mutex<Vec<u8>>,
}

impl HaltingProxy {
    /// Starts a proxy to the server of this URL, which has the form `postgres://…@host:port/…`.
    pub async fn start(url: &str, point: CrashPoint) -> Self {
        let (credentials, rest) = url.rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        // The proxy reads the messages, so it does not understand TLS.
        let address = listener.local_addr().unwrap();
        let url = format!("{credentials}@{address}/{database}?sslmode=disable");
        let shared = Arc::new(Shared {
            point,
            executions: AtomicUsize::new(0),
            is_halted: AtomicBool::new(false),
            halted: Notify::new(),
            delivery: Notify::new(),
            replied: Notify::new(),
            reply: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, server.to_owned(), shared.clone()));
        Self { url, shared, accepting }
    }

    /// Waits until the client has reached the crash point. PostgreSQL gets nothing more from it.
    pub async fn halted(&self) {
        self.shared.halted.notified().await;
    }

    /// Lets PostgreSQL execute the held statement now, and returns how many rows it changed.
    pub async fn deliver(&self) -> u64 {
        self.shared.delivery.notify_one();
        self.shared.replied.notified().await;
        changed_rows(&self.shared.reply.lock())
    }
}

impl Drop for HaltingProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, shared) = (server.clone(), shared.clone());
        if !shared.is_halted.load(Ordering::SeqCst) {
            connections.spawn(async move { connect(client, &server, &shared).await.ok() });
        }
    }
}

async fn connect(client: TcpStream, server: &str, shared: &Shared) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let is_withheld = AtomicBool::new(false);
    tokio::select! {
        result = forward_statements(from_client, to_server, &is_withheld, shared) => result,
        result = forward_responses(from_server, to_client, &is_withheld, shared) => result,
    }
}

async fn forward_statements(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    is_withheld: &AtomicBool,
    shared: &Shared,
) -> io::Result<()> {
    // The first message has no type.
    server.write_all(&read_message(&mut client, 0).await?).await?;
    let mut matching = HashSet::new();
    loop {
        let mut message = read_message(&mut client, 1).await?;
        if shared.is_halted.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if !shared.is_crash_point(&message, &mut matching) {
            server.write_all(&message).await?;
            continue;
        }
        // The execution ends with a message of the type Sync.
        while !message.ends_with(&[b'S', 0, 0, 0, 4]) {
            message.extend(read_message(&mut client, 1).await?);
        }
        shared.is_halted.store(true, Ordering::SeqCst);
        is_withheld.store(true, Ordering::SeqCst);
        if shared.point.is_before {
            shared.halted.notify_one();
            shared.delivery.notified().await;
        }
        server.write_all(&message).await?;
        return std::future::pending().await;
    }
}

async fn forward_responses(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    is_withheld: &AtomicBool,
    shared: &Shared,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = server.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        if is_withheld.load(Ordering::SeqCst) {
            let mut reply = shared.reply.lock();
            reply.extend_from_slice(&bytes[..count]);
            // ReadyForQuery: the statement is committed, or part of a transaction.
            if reply.len() >= 6 && reply[reply.len() - 6..].starts_with(&[b'Z', 0, 0, 0, 5]) {
                let reached = if shared.point.is_before { &shared.replied } else { &shared.halted };
                reached.notify_one();
            }
        } else if !shared.is_halted.load(Ordering::SeqCst) {
            client.write_all(&bytes[..count]).await?;
        }
    }
}

impl Shared {
    /// Whether the message begins the execution at the crash point. Remembers in `matching` the
    /// names of prepared statements with its text.
    fn is_crash_point(&self, message: &[u8], matching: &mut HashSet<Vec<u8>>) -> bool {
        let mut texts = message[5..].split(|byte| *byte == 0);
        let first = texts.next().unwrap_or_default();
        let second = texts.next().unwrap_or_default();
        match message[0] {
            // Parse: the name, the text.
            b'P' => {
                if String::from_utf8_lossy(second).contains(self.point.statement) {
                    matching.insert(first.to_vec());
                } else {
                    matching.remove(first);
                }
                false
            }
            // Bind: the name of the portal, the name of the statement.
            b'B' if matching.contains(second) => {
                self.executions.fetch_add(1, Ordering::SeqCst) + 1 == self.point.execution
            }
            _ => false,
        }
    }
}

/// Reads a message with a type of `type_length` bytes, and a length that includes itself.
async fn read_message(client: &mut OwnedReadHalf, type_length: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; type_length + 4];
    client.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[type_length..].try_into().unwrap());
    message.resize(type_length + usize::try_from(length).unwrap(), 0);
    client.read_exact(&mut message[type_length + 4..]).await?;
    Ok(message)
}

/// The number in the command tag, such as 3 in `UPDATE 3`.
fn changed_rows(mut reply: &[u8]) -> u64 {
    while let [kind, length @ ..] = reply {
        let length = u32::from_be_bytes(length[..4].try_into().unwrap());
        let (message, rest) = reply.split_at(1 + usize::try_from(length).unwrap());
        if *kind == b'C' {
            let tag = String::from_utf8_lossy(&message[5..message.len() - 1]).into_owned();
            return tag.rsplit(' ').next().unwrap().parse().unwrap();
        }
        reply = rest;
    }
    panic!("PostgreSQL refused the statement: {}", String::from_utf8_lossy(reply))
}
