//! Every route: its path, its methods, its handler.

use std::future::{Ready, ready};

use actix_web::{HttpResponse, web as plain};
use paperclip::actix::web;

use crate::problem::{Code, Problem};
use crate::{health, sessions, templates};

/// The API, as the OpenAPI document describes it.
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
            web::resource("/api/v1/session-templates")
                .route(web::get().to(templates::list))
                .route(web::post().to(templates::create))
                .default_service(plain::to(|| not_allowed("GET, POST"))),
        )
        .service(
            web::resource("/api/v1/session-templates/{session_template_id}")
                .route(web::get().to(templates::get))
                .default_service(plain::to(|| not_allowed("GET"))),
        );
}

/// What stands beside the API: health, and the document itself.
pub fn operations(routes: &mut plain::ServiceConfig, document: &'static str) {
    let openapi =
        move || async move { HttpResponse::Ok().content_type("application/json").body(document) };
    for (path, route) in [
        ("/livez", plain::get().to(health::livez)),
        ("/readyz", plain::get().to(health::readyz)),
        ("/openapi.json", plain::get().to(openapi)),
    ] {
        let resource = plain::resource(path).route(route);
        routes.service(resource.default_service(plain::to(|| not_allowed("GET"))));
    }
}

/// A path that is none of them.
pub async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::new(Code::RouteNotFound, "There is no such route; /openapi.json names them all."))
}

fn not_allowed(allow: &'static str) -> Ready<Result<HttpResponse, Problem>> {
    ready(Err(Problem::method_not_allowed(allow)))
}
