//! The HTTP server: composed here, and nowhere else.

use actix_web::middleware::{Condition, from_fn};
use actix_web::web::{self, Data, PayloadConfig};
use actix_web::{App, HttpServer};
use anyhow::Context;
use greenroom_core::Greenroom;
use paperclip::actix::OpenApiExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Settings;
use crate::extract::BODY_LIMIT;
use crate::{auth, cors, openapi, request, routes, telemetry};

/// How long what has begun may take to come to its end: a request has five seconds to send its body,
/// and then as long as PostgreSQL and LiveKit are waited for.
const SHUTDOWN_SECONDS: u64 = 30;

/// Serves until SIGTERM or Ctrl-C, then lets what has begun come to its end.
///
/// # Errors
/// When the address cannot be listened on.
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
    let greenroom = Data::new(Greenroom::new(settings.greenroom)?);
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
            .app_data(greenroom.clone())
            .app_data(PayloadConfig::new(BODY_LIMIT))
            .wrap_api()
            .configure(routes::api)
            .build()
            .configure(|operations| routes::operations(operations, document))
            .default_service(web::to(routes::not_found))
    })
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .shutdown_signal(asked_to_stop()?)
    .bind(settings.listen)
    .with_context(|| format!("cannot listen on {} (GREENROOM_LISTEN)", settings.listen))?;
    for address in server.addrs() {
        tracing::info!(%address, pid = std::process::id(), "listening");
    }
    server.run().await.context("the server failed")?;
    tracing::info!("stopped");
    Ok(())
}

/// Ends at SIGTERM or Ctrl-C, which are the same to us: actix-web's own handler would cut off at
/// the latter what has begun.
fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new requests, and those that have begun come to their end");
    })
}
