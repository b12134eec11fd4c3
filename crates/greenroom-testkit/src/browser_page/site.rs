//! The web server of a test page. It serves the page's files and receives the page's reports.

use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::http::Request;
use crate::tools;

/// The content of the site and the reports of its page.
#[derive(Debug, Default)]
struct State {
    /// Paths and texts.
    files: Vec<(&'static str, String)>,
    settings: Mutex<Value>,
    reports: Mutex<Vec<Value>>,
}

/// A site with one page, on a separate port. Dropping it stops the web server.
#[derive(Debug)]
pub struct Site {
    origin: String,
    state: Arc<State>,
    accept_task: JoinHandle<()>,
}

impl Site {
    /// Starts a site with these files (path and text). Its page runs the module `/page.mjs`, which
    /// can import `livekit-client` and `testkit`. `testkit` exports `settings` and the function
    /// `report`.
    ///
    /// # Errors
    /// Returns an error if LiveKit's SDK cannot be downloaded or no port is free.
    pub async fn serve(files: &[(&'static str, &str)]) -> Result<Self> {
        let sdk = tokio::task::spawn_blocking(tools::livekit_client::module).await??;
        let sdk = std::fs::read_to_string(&sdk)
            .with_context(|| format!("failed to read {}", sdk.display()))?;
        let common = [
            ("/", include_str!("../../web/index.html")),
            ("/testkit.mjs", include_str!("../../web/testkit.mjs")),
            ("/livekit-client.mjs", sdk.as_str()),
        ];
        let files =
            common.iter().chain(files).map(|&(path, text)| (path, text.to_owned())).collect();
        let state = Arc::new(State { files, ..State::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let accept_task = tokio::spawn(accept_connections(listener, Arc::clone(&state)));
        Ok(Self { origin, state, accept_task })
    }

    /// Returns the site's origin as a browser sends it, `http://host:port`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the page's reports so far.
    pub(super) fn reports(&self) -> Vec<Value> {
        self.state.reports.lock().clone()
    }

    pub(super) fn set_settings(&self, settings: Value) {
        *self.state.settings.lock() = settings;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.accept_task.abort();
    }
}

async fn accept_connections(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        connections.spawn(serve(connection, Arc::clone(&state)));
    }
}

/// Answers one request and closes the connection.
async fn serve(connection: TcpStream, state: Arc<State>) -> Result<()> {
    let mut connection = BufReader::new(connection);
    // Browsers also open connections in advance and may close them without a request.
    let Some(request) = Request::read(&mut connection).await? else { return Ok(()) };
    let (status, content_type, body) = state.answer(&request);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    Ok(connection.shutdown().await?)
}

impl State {
    /// Returns the status, the content type and the body.
    fn answer(&self, request: &Request) -> (&'static str, &'static str, String) {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/reports") => {
                let report = serde_json::from_str(&request.body).unwrap_or_default();
                self.reports.lock().push(report);
                ("204 No Content", "text/plain", String::new())
            }
            ("GET", "/settings.json") => {
                let settings = self.settings.lock();
                ("200 OK", "application/json", settings.to_string())
            }
            (_, path) => match self.files.iter().find(|(file, _)| *file == path) {
                Some((_, text)) if path == "/" => ("200 OK", "text/html", text.clone()),
                Some((_, text)) => ("200 OK", "text/javascript", text.clone()),
                None => ("404 Not Found", "text/plain", String::new()),
            },
        }
    }
}
