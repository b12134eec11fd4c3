//! The HTTP server: composed here, and nowhere else.

use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, PayloadConfig};
use actix_web::{App, HttpServer};
use anyhow::Context;
use greenroom_core::Greenroom;
use paperclip::actix::OpenApiExt;

use crate::auth::Verifier;
use crate::config::Settings;
use crate::extract::BODY_LIMIT;
use crate::{openapi, request, routes, telemetry};

/// Serves until SIGTERM or Ctrl-C, then lets what has begun come to its end.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    telemetry::start(&settings)?;
    let verifier = Data::new(Verifier::new(&settings.auth_jwt_secret));
    let greenroom = Data::new(Greenroom::new(settings.greenroom)?);
    // One document for the life of the process.
    let document: &'static str = openapi::document().leak();
    let server = HttpServer::new(move || {
        App::new()
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
    .shutdown_timeout(10)
    .bind(settings.listen)
    .with_context(|| format!("cannot listen on {}", settings.listen))?;
    for address in server.addrs() {
        tracing::info!(%address, pid = std::process::id(), "listening");
    }
    server.run().await.context("the server failed")
}
