//! The origin a page is of: what it is made of, and where it tells what it sees.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{http::Request, tools};

/// What the site answers with, and what it was told.
#[derive(Debug, Default)]
struct State {
    files: Vec<(&'static str, String)>,
    settings: Mutex<Value>,
    told: Mutex<Vec<Value>>,
}

/// A site of one page, on a port of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Site {
    origin: String,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Site {
    /// A site whose page runs the module `/page.mjs` of these files. That imports `testkit`, for its
    /// settings and to `tell` what it sees, and `livekit-client`.
    ///
    /// # Errors
    /// When LiveKit's SDK cannot be fetched, or no port is free.
    pub async fn serve(files: &[(&'static str, &str)]) -> Result<Self> {
        let sdk = tokio::task::spawn_blocking(tools::livekit_client::module).await??;
        let sdk = std::fs::read_to_string(&sdk)
            .with_context(|| format!("cannot read {}", sdk.display()))?;
        let own = [
            ("/", include_str!("../../web/index.html")),
            ("/testkit.mjs", include_str!("../../web/testkit.mjs")),
            ("/livekit-client.mjs", sdk.as_str()),
        ];
        let files = own.iter().chain(files).map(|&(path, text)| (path, text.to_owned())).collect();
        let state = Arc::new(State { files, ..State::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(serve_all(listener, Arc::clone(&state)));
        Ok(Self { origin, state, serving })
    }

    /// Its origin, as a browser names it.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What the page told so far.
    pub(super) fn told(&self) -> Vec<Value> {
        self.state.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn settle(&self, settings: Value) {
        *self.state.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve_all(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        connections.spawn(serve(connection, Arc::clone(&state)));
    }
}

/// One request: the connection is closed after it.
async fn serve(connection: TcpStream, state: Arc<State>) -> Result<()> {
    let mut connection = BufReader::new(connection);
    // A browser also connects in case it may want to ask something.
    let Some(request) = Request::read(&mut connection).await? else { return Ok(()) };
    let (status, kind, body) = state.answer(&request);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    Ok(connection.shutdown().await?)
}

impl State {
    fn answer(&self, request: &Request) -> (&'static str, &'static str, String) {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/told") => {
                let told = serde_json::from_str(&request.body).unwrap_or_default();
                self.told.lock().unwrap_or_else(PoisonError::into_inner).push(told);
                ("204 No Content", "text/plain", String::new())
            }
            ("GET", "/settings.json") => {
                let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
                ("200 OK", "application/json", settings.to_string())
            }
            (_, path) => match self.files.iter().find(|(own, _)| *own == path) {
                Some((_, text)) if path == "/" => ("200 OK", "text/html", text.clone()),
                Some((_, text)) => ("200 OK", "text/javascript", text.clone()),
                None => ("404 Not Found", "text/plain", String::new()),
            },
        }
    }
}
