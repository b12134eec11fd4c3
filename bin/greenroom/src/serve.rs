//! `greenroom serve`: composes the HTTP server and the keeper (the loop that reconciles sessions
//! with LiveKit), and shuts them down.

use actix_web::dev::ServerHandle;
use actix_web::middleware::{Condition, from_fn};
use actix_web::web::Data;
use actix_web::{App, HttpServer, web};
use anyhow::Context;
use greenroom_core::Greenroom;
use paperclip::actix::OpenApiExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Settings;
use crate::{auth, cors, openapi, request, routes, telemetry};

/// Time for requests in progress to finish after a shutdown starts. A request with `wait_for` takes
/// longest, up to 30 seconds. Any other request has 5 seconds to send its body, and then the
/// time-outs of PostgreSQL and LiveKit apply.
const SHUTDOWN_SECONDS: u64 = 35;

/// Serves requests and runs the keeper until SIGTERM or Ctrl-C. Then waits until requests in
/// progress have finished and abandoned work on the database is settled.
///
/// # Errors
/// Returns an error if the server cannot listen on its address, or if the keeper panics.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    telemetry::start(&settings)?;
    for name in &settings.without_effect {
        tracing::warn!(variable = name, "ignored variable that has no effect in this version");
    }
    let verifier = Data::new(settings.verifier);
    // Without the published keys, every token is refused. A token that arrives at least 30 s later
    // causes another fetch.
    if let Err(error) = verifier.check().await {
        tracing::warn!(error, "failed to fetch the callers' keys");
    }
    let greenroom = Greenroom::new(settings.greenroom)?;
    let shared = Data::new(greenroom.clone());
    let origins = settings.cors_origins;
    // Leaked once, because every worker needs the document until the process ends.
    let document: &'static str = openapi::document().leak();
    let server = HttpServer::new(move || {
        App::new()
            // Requests pass these from the last `wrap` to the first: request id, CORS,
            // authentication. The request id comes first, so that every response has one. CORS
            // comes before authentication, because a preflight request has no token.
            .wrap(from_fn(auth::authenticate))
            .wrap(Condition::new(!origins.is_empty(), cors::middleware(&origins)))
            .wrap(from_fn(request::handle))
            .app_data(verifier.clone())
            .app_data(shared.clone())
            .wrap_api()
            .configure(routes::api)
            .build()
            .configure(|operations| routes::operations(operations, document))
            .default_service(web::to(routes::not_found))
    })
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(log_shutdown(stop_signal()?))
    .bind(settings.listen)
    .with_context(|| format!("failed to listen on {} (GREENROOM_LISTEN)", settings.listen))?;
    for address in server.addrs() {
        tracing::info!(%address, pid = std::process::id(), "listening");
    }
    let server = server.run();
    let keeper = run_keeper(greenroom.clone(), stop_signal()?, server.handle());
    let serving = async { server.await.context("failed to run the server") };
    tokio::try_join!(serving, keeper)?;
    // Work that was abandoned during the last requests is settled on the main runtime, which ends now.
    greenroom.settle_abandoned_work().await;
    tracing::info!("stopped");
    Ok(())
}

/// Runs the keeper on the main runtime until the process must stop. If the keeper panics, the
/// process stops as well: a process that only served requests would look healthy and start sessions
/// that no keeper reconciles.
async fn run_keeper(
    greenroom: Greenroom,
    stop: impl Future<Output = ()> + Send + 'static,
    server: ServerHandle,
) -> anyhow::Result<()> {
    let result = tokio::spawn(async move { greenroom.run_keeper(stop).await }).await;
    if let Err(error) = &result {
        tracing::error!(%error, "failed to run the keeper, shutting down");
        server.stop(true).await;
    }
    result.context("failed to run the keeper")
}

/// Returns a future that completes at SIGTERM or Ctrl-C. Both start a graceful shutdown;
/// actix-web's own handler would abort requests in progress at Ctrl-C. Every future of this
/// function sees the same signal.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn log_shutdown(stop: impl Future<Output = ()>) {
    stop.await;
    tracing::info!(timeout_seconds = SHUTDOWN_SECONDS, "started shutdown");
}
