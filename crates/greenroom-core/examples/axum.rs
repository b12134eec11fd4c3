//! A server on axum that starts sessions, receives LiveKit's webhooks and shuts down gracefully. It
//! has its own authentication: greenroom-core does not depend on a web framework.
//!
//! ```text
//! DATABASE_URL=… LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… \
//!     cargo run -p greenroom-core --example axum
//! ```
//!
//! While `cargo xtask dev` runs, `set -a; . target/dev/greenroom.env; set +a` sets these variables.
//!
//! With `--once`, the program sends itself the requests of a client, and stops.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use greenroom_core::domain::{
    OrganizationId, PageLimit, SessionId, SessionTemplateId, TemplateName, UserId,
};
use greenroom_core::{
    Caller, Config, Error, Greenroom, KeyPair, LiveKitConfig, PageRequest, StartRequest,
    StoreError, TemplateFilter, TemplateSettings,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The only API key of this example, and the organization that it belongs to. A real server looks
/// up keys in its own storage.
const API_KEY: &str = "the key of a customer";
const ORGANIZATION: OrganizationId =
    OrganizationId(uuid::Uuid::from_u128(0x0193_b8a0_0000_7000_8000_0000_0000_0a8b));

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let greenroom = Greenroom::new(configuration()?)?;
    greenroom.admin().migrate().await?;
    let template = find_or_create_template(&greenroom).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("POST http://{address}/sessions starts sessions of template {template}");

    // Dropping the sender stops the server and the keeper after their work in progress.
    let (stop_sender, stop_receiver) = watch::channel(());
    let stop = || {
        let mut receiver = stop_receiver.clone();
        async move { drop(receiver.changed().await) }
    };
    let server = axum::serve(listener, routes(greenroom.clone())).with_graceful_shutdown(stop());
    let stop_keeper = stop();
    let keeper = greenroom.clone();
    let keeper = tokio::spawn(async move { keeper.run_keeper(stop_keeper).await });
    let run_until_stopped = async move {
        if std::env::args().any(|argument| argument == "--once") {
            send_requests(address, template).await?;
        } else {
            shutdown_signal().await?;
        }
        drop(stop_sender);
        Ok(())
    };
    let serve = async { server.await.context("the server failed") };
    // If the keeper panics, the process stops: it must not start sessions that no keeper
    // reconciles.
    let keep = async { keeper.await.context("the keeper panicked") };
    tokio::try_join!(serve, keep, run_until_stopped)?;
    greenroom.settle_abandoned_work().await;
    println!("stopped");
    Ok(())
}

fn routes(greenroom: Greenroom) -> Router {
    Router::new()
        .route("/sessions", post(start))
        .layer(from_fn(authenticate))
        // This route is outside the authentication, because greenroom-core verifies LiveKit's
        // signature.
        .route("/webhooks/livekit", post(webhook))
        .with_state(greenroom)
}

/// Authenticates the caller. greenroom-core trusts the `Caller` and checks what the caller may do.
async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let key = request.headers().get("x-api-key").and_then(|key| key.to_str().ok());
    if key != Some(API_KEY) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    request.extensions_mut().insert(Caller::backend(ORGANIZATION));
    Ok(next.run(request).await)
}

#[derive(Deserialize)]
struct StartBody {
    session_template_id: SessionTemplateId,
    user_id: Option<String>,
}

/// The field names are those of LiveKit's SDKs, which read this response unchanged.
#[derive(Serialize, Deserialize)]
struct StartResponse {
    session_id: SessionId,
    server_url: String,
    participant_token: String,
}

async fn start(
    State(greenroom): State<Greenroom>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<StartBody>,
) -> Result<impl IntoResponse, Failure> {
    let mut request = StartRequest::new(body.session_template_id);
    request.user_id = body
        .user_id
        .map(UserId::try_from)
        .transpose()
        .map_err(|invalid| Failure(StatusCode::BAD_REQUEST, format!("user_id {invalid}")))?;
    let started = greenroom.start(&caller, request).await?;
    Ok((
        StatusCode::CREATED,
        [(header::CACHE_CONTROL, "no-store")],
        Json(StartResponse {
            session_id: started.session.id,
            server_url: started.livekit_url,
            participant_token: started.access_token,
        }),
    ))
}

async fn webhook(
    State(greenroom): State<Greenroom>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(), Failure> {
    let signature = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    Ok(greenroom.receive_webhook(signature.unwrap_or_default(), &body).await?)
}

/// An HTTP response for an error. The errors of greenroom-core contain no status code.
struct Failure(StatusCode, String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::TemplateNotFound(_) => StatusCode::NOT_FOUND,
            Error::TemplateForbidden(_) | Error::UserMismatch => StatusCode::FORBIDDEN,
            Error::InvalidWebhook(_) => StatusCode::UNAUTHORIZED,
            Error::SessionOver(_) => StatusCode::CONFLICT,
            Error::TooManyActiveSessions { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::LiveKit(_) => StatusCode::BAD_GATEWAY,
            Error::Store(
                StoreError::Unavailable(_) | StoreError::Refused(_) | StoreError::Timeout(_),
            )
            | Error::Overloaded
            | Error::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            // These two routes return no other errors. A real server maps all variants.
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

async fn find_or_create_template(greenroom: &Greenroom) -> anyhow::Result<SessionTemplateId> {
    let caller = Caller::backend(ORGANIZATION);
    let newest = PageRequest::first(PageLimit::constant::<1>());
    let templates = greenroom.templates(&caller, TemplateFilter::default(), newest).await?;
    if let Some(template) = templates.items.first() {
        return Ok(template.id);
    }
    let name = TemplateName::try_from("Under axum".to_owned())?;
    Ok(greenroom.create_template(&caller, TemplateSettings::new(name)).await?.id)
}

/// Starts a session as a client, and fails if the server accepts an unauthenticated request.
async fn send_requests(address: SocketAddr, template: SessionTemplateId) -> anyhow::Result<()> {
    let body = format!(r#"{{"session_template_id": "{template}", "user_id": "ann"}}"#);
    let response = post_json(address, "/sessions", &format!("x-api-key: {API_KEY}"), &body).await?;
    let (head, body) = response.split_once("\r\n\r\n").context("the response is not HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 201 "), "the start was refused: {response}");
    let started: StartResponse = serde_json::from_str(body)?;
    println!("session  {} at {}", started.session_id, started.server_url);
    println!("token    {} bytes", started.participant_token.len());

    for (path, header) in [("/sessions", "x-api-key: wrong"), ("/webhooks/livekit", "x: y")] {
        let response = post_json(address, path, header, "{}").await?;
        ensure!(response.starts_with("HTTP/1.1 401 "), "{path} accepted the request: {response}");
    }
    Ok(())
}

/// Sends a POST request, and returns the response with its header.
async fn post_json(
    address: SocketAddr,
    path: &str,
    header: &str,
    body: &str,
) -> anyhow::Result<String> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\n{header}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    connection.read_to_string(&mut response).await?;
    Ok(response)
}

async fn shutdown_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}

fn configuration() -> anyhow::Result<Config> {
    let key = KeyPair::new(
        variable("LIVEKIT_API_KEY")?.parse()?,
        variable("LIVEKIT_API_SECRET")?.parse()?,
    );
    let livekit = LiveKitConfig::new(variable("LIVEKIT_URL")?.parse()?, key);
    Ok(Config::new(variable("DATABASE_URL")?.parse()?, livekit))
}

#[expect(clippy::disallowed_methods, reason = "an example reads its configuration here")]
fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
