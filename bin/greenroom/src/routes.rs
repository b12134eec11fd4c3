//! All routes with their methods and handlers.

use std::future::{Ready, ready};

use actix_web::{HttpResponse, web as plain};
use paperclip::actix::web;

use crate::problem::Problem;
use crate::{docs, health, limits, sessions, templates, webhooks};

/// The routes of the API, which the OpenAPI document describes.
pub fn api(routes: &mut web::ServiceConfig<'_>) {
    routes
        .service(
            web::resource("/api/v1/sessions/start")
                .route(web::post().to(sessions::start::start))
                .default_service(plain::to(|| not_allowed("POST"))),
        )
        .service(
            web::resource("/api/v1/sessions")
                .route(web::get().to(sessions::query::list))
                .default_service(plain::to(|| not_allowed("GET"))),
        )
        .service(
            web::resource("/api/v1/sessions/{session_id}")
                .route(web::get().to(sessions::query::get))
                .default_service(plain::to(|| not_allowed("GET"))),
        )
        .service(
            web::resource("/api/v1/sessions/{session_id}/token")
                .route(web::post().to(sessions::token::refresh))
                .default_service(plain::to(|| not_allowed("POST"))),
        )
        .service(
            web::resource("/api/v1/sessions/{session_id}/end")
                .route(web::post().to(sessions::end::end))
                .default_service(plain::to(|| not_allowed("POST"))),
        )
        .service(
            web::resource("/api/v1/sessions/{session_id}/timeline")
                .route(web::get().to(sessions::timeline::get))
                .default_service(plain::to(|| not_allowed("GET"))),
        )
        .service(
            web::resource("/api/v1/session-templates")
                .route(web::get().to(templates::list))
                .route(web::post().to(templates::create))
                .default_service(plain::to(|| not_allowed("GET, POST"))),
        )
        .service(
            web::resource("/api/v1/session-templates/{session_template_id}")
                .route(web::get().to(templates::get))
                .route(web::patch().to(templates::update))
                .route(web::delete().to(templates::archive))
                .default_service(plain::to(|| not_allowed("GET, PATCH, DELETE"))),
        )
        .service(
            web::resource("/api/v1/limits")
                .route(web::get().to(limits::get))
                .default_service(plain::to(|| not_allowed("GET"))),
        );
}

/// The other routes: LiveKit's webhooks, health checks, the OpenAPI document and its page.
pub fn operations(routes: &mut plain::ServiceConfig, document: &'static str) {
    routes.service(
        plain::resource("/webhooks/livekit")
            .route(plain::post().to(webhooks::receive))
            .default_service(plain::to(|| not_allowed("POST"))),
    );
    let openapi =
        move || async move { HttpResponse::Ok().content_type("application/json").body(document) };
    // Load balancers also send HEAD. actix-web then omits the body.
    for (path, get, head) in [
        ("/livez", plain::get().to(health::livez), plain::head().to(health::livez)),
        ("/readyz", plain::get().to(health::readyz), plain::head().to(health::readyz)),
        ("/openapi.json", plain::get().to(openapi), plain::head().to(openapi)),
        ("/docs", plain::get().to(docs::page), plain::head().to(docs::page)),
        ("/docs/{file}", plain::get().to(docs::file), plain::head().to(docs::file)),
    ] {
        let resource = plain::resource(path).route(get).route(head);
        routes.service(resource.default_service(plain::to(|| not_allowed("GET, HEAD"))));
    }
}

/// Handles every path that is not a route.
pub async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::route_not_found())
}

fn not_allowed(allow: &'static str) -> Ready<Result<HttpResponse, Problem>> {
    ready(Err(Problem::method_not_allowed(allow)))
}
