//! The HTTP server: composed here, and nowhere else.

use actix_web::dev::ServerHandle;
use actix_web::middleware::{Condition, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use anyhow::Context;
use greenroom_core::Greenroom;
use paperclip::actix::OpenApiExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Settings;
use crate::{auth, cors, openapi, request, routes, telemetry};

/// How long what has begun may take to come to its end. A wait for a session is the longest, with
/// thirty seconds; any other request has five to send its body, and then as long as PostgreSQL and
/// LiveKit are waited for.
const SHUTDOWN_SECONDS: u64 = 35;

/// Serves, and keeps what was started, until SIGTERM or Ctrl-C; then lets what has begun come to its
/// end.
///
/// # Errors
/// When the address cannot be listened on, or the keeper breaks.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    telemetry::start(&settings)?;
    for name in &settings.without_effect {
        tracing::warn!("{name} is set, and has no effect in this version");
    }
    let verifier = Data::new(settings.verifier);
    // Without the published keys nobody gets in, and the next token fetches them again.
    if let Err(reason) = verifier.check().await {
        tracing::warn!(reason, "callers cannot be verified");
    }
    let greenroom = Greenroom::new(settings.greenroom)?;
    let shared = Data::new(greenroom.clone());
    let origins = settings.cors_origins;
    // One document for the life of the process.
    let document: &'static str = openapi::document().leak();
    let server = HttpServer::new(move || {
        App::new()
            // The last is the outermost: a preflight has no token, and every answer has an id.
            .wrap(from_fn(auth::authenticate))
            .wrap(Condition::new(!origins.is_empty(), cors::allowing(&origins)))
            .wrap(from_fn(request::answer))
            .app_data(verifier.clone())
            .app_data(shared.clone())
            .wrap_api()
            .configure(routes::api)
            .build()
            .configure(|operations| routes::operations(operations, document))
            .default_service(web::to(routes::not_found))
    })
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(stopping(asked_to_stop()?))
    .bind(settings.listen)
    .with_context(|| format!("cannot listen on {} (GREENROOM_LISTEN)", settings.listen))?;
    for address in server.addrs() {
        tracing::info!(%address, pid = std::process::id(), "listening");
    }
    let server = server.run();
    let keeper = keep(greenroom, asked_to_stop()?, server.handle());
    let serving = async { server.await.context("the server failed") };
    tokio::try_join!(serving, keeper)?;
    tracing::info!("stopped");
    Ok(())
}

/// Keeps sessions, on the main runtime, until it is asked to stop. A keeper that breaks ends the
/// process: one that served on would start sessions that nobody looks after, and look well to
/// whoever is there to restart it.
async fn keep(
    greenroom: Greenroom,
    stop: impl Future<Output = ()> + Send + 'static,
    server: ServerHandle,
) -> anyhow::Result<()> {
    let kept = tokio::spawn(async move { greenroom.run_keeper(stop).await }).await;
    if let Err(broken) = &kept {
        tracing::error!(error = %broken, "the keeper broke, so this process stops");
        server.stop(true).await;
    }
    kept.context("the keeper broke")
}

/// Ends at SIGTERM or Ctrl-C, which are the same to us: actix-web's own handler would cut off at
/// the latter what has begun. Whoever listens is told of the same signal.
fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn stopping(asked: impl Future<Output = ()>) {
    asked.await;
    tracing::info!("stopping: nothing new begins, and what has begun comes to its end");
}
