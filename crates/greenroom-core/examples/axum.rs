//! Greenroom under axum, behind an authentication of one's own: core is tied to no web framework.
//!
//! `DATABASE_URL=… LIVEKIT_URL=… LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=… cargo run -p greenroom-core --example axum`
//!
//! While `cargo xtask dev` runs, `set -a; . target/dev/greenroom.env; set +a` sets all four.
//!
//! With `--once` it calls itself as a client would, and stops.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use greenroom_core::domain::{OrganizationId, SessionId, SessionTemplateId, TemplateName, UserId};
use greenroom_core::{
    Caller, Config, Error, Greenroom, KeyPair, LiveKitConfig, PageRequest, StartRequest,
    StoreError, TemplateFilter, TemplateSettings, migrate,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whom the one key of this example belongs to. Yours are wherever you keep them.
const KEY: &str = "the key of a customer";
const ORGANIZATION: OrganizationId =
    OrganizationId(uuid::Uuid::from_u128(0x0193_b8a0_0000_7000_8000_0000_0000_0a8b));

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    migrate::run(&variable("DATABASE_URL")?).await?;
    let greenroom = Greenroom::new(configuration()?)?;
    let template = template(&greenroom).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("POST http://{address}/sessions starts sessions of template {template}");

    // Server and keeper stop when this is dropped; what they have begun comes to its end first.
    let (running, stopped) = watch::channel(());
    let stop = || {
        let mut stopped = stopped.clone();
        async move { drop(stopped.changed().await) }
    };
    let server = axum::serve(listener, routes(greenroom.clone())).with_graceful_shutdown(stop());
    let keeper_stops = stop();
    let keeper = tokio::spawn(async move { greenroom.run_keeper(keeper_stops).await });
    let until_the_end = async move {
        if std::env::args().any(|argument| argument == "--once") {
            try_it(address, template).await?;
        } else {
            asked_to_stop().await?;
        }
        drop(running);
        Ok(())
    };
    let serving = async { server.await.context("the server failed") };
    // A keeper that breaks takes the process with it: sessions must not start that nobody keeps.
    let keeper_permits = async { keeper.await.context("the keeper broke") };
    tokio::try_join!(serving, keeper_permits, until_the_end)?;
    println!("stopped");
    Ok(())
}

fn routes(greenroom: Greenroom) -> Router {
    Router::new()
        .route("/sessions", post(start))
        .layer(from_fn(authenticate))
        // LiveKit signs what it sends, and core verifies that.
        .route("/webhooks/livekit", post(webhook))
        .with_state(greenroom)
}

/// Whoever calls, by one's own rules. Core takes their word for it, and checks the rest.
async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let key = request.headers().get("x-api-key").and_then(|key| key.to_str().ok());
    if key != Some(KEY) {
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

/// In the words of LiveKit's SDKs, which take it as it is.
#[derive(Serialize, Deserialize)]
struct StartedRow {
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
        Json(StartedRow {
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

/// What core's errors are over HTTP, which core does not know.
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
            Error::Store(StoreError::Unavailable(_) | StoreError::Timeout(_))
            | Error::Overloaded
            | Error::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            // What else there is does not come of these two routes; yours may want more.
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

async fn template(greenroom: &Greenroom) -> anyhow::Result<SessionTemplateId> {
    let newest = PageRequest { limit: 1, ..PageRequest::default() };
    let templates = greenroom.templates(ORGANIZATION, TemplateFilter::default(), newest).await?;
    if let Some(template) = templates.items.first() {
        return Ok(template.id);
    }
    let name = TemplateName::try_from("Under axum".to_owned())?;
    Ok(greenroom.create_template(ORGANIZATION, TemplateSettings::new(name)).await?.id)
}

/// LiveKitLimiter it as others would: starts a session, and fails where it takes what it must refuse.
async fn try_it(address: SocketAddr, template: SessionTemplateId) -> anyhow::Result<()> {
    let body = format!(r#"{{"session_template_id": "{template}", "user_id": "ann"}}"#);
    let answer = ask(address, "/sessions", &format!("x-api-key: {KEY}"), &body).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("it did not answer in HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 201 "), "the start was refused: {answer}");
    let started: StartedRow = serde_json::from_str(body)?;
    println!("session  {} at {}", started.session_id, started.server_url);
    println!("token    {} bytes", started.participant_token.len());

    for (path, header) in [("/sessions", "x-api-key: a stranger's"), ("/webhooks/livekit", "x: y")]
    {
        let answer = ask(address, path, header, "{}").await?;
        ensure!(answer.starts_with("HTTP/1.1 401 "), "{path} took what is nobody's: {answer}");
    }
    Ok(())
}

/// A bare client's POST, and all that came back.
async fn ask(address: SocketAddr, path: &str, header: &str, body: &str) -> anyhow::Result<String> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\n{header}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    Ok(())
}

fn configuration() -> anyhow::Result<Config> {
    let livekit = LiveKitConfig {
        url: variable("LIVEKIT_URL")?.parse()?,
        api_url: variable("LIVEKIT_URL")?.parse()?,
        key: KeyPair {
            api_key: variable("LIVEKIT_API_KEY")?.into(),
            api_secret: variable("LIVEKIT_API_SECRET")?.into(),
        },
        previous_key: None,
    };
    Ok(Config::new(variable("DATABASE_URL")?.into(), livekit))
}

#[allow(clippy::disallowed_methods, reason = "an example's configuration is its environment")]
fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
