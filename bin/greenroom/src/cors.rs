//! CORS: the web pages that may call the API from a browser (Fetch standard).

use actix_cors::Cors;
use actix_web::http::header;
use actix_web::http::header::HeaderName;

use crate::problem::{RATE_LIMIT, RATE_LIMIT_REMAINING, RATE_LIMIT_RESET, REQUEST_ID};
use crate::sessions::start::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED};

/// The response headers that a page may read.
const EXPOSED: [HeaderName; 8] = [
    header::LOCATION,
    header::LINK,
    header::RETRY_AFTER,
    REQUEST_ID,
    IDEMPOTENT_REPLAYED,
    RATE_LIMIT,
    RATE_LIMIT_REMAINING,
    RATE_LIMIT_RESET,
];

/// Permits pages of these origins to call the API. Callers send a token and no cookies, so CORS
/// credentials stay off.
pub fn middleware(origins: &[String]) -> Cors {
    let cors = origins.iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
    cors.allowed_methods(["GET", "POST", "PATCH", "DELETE"])
        .allowed_headers([header::AUTHORIZATION, header::CONTENT_TYPE, IDEMPOTENCY_KEY, REQUEST_ID])
        .expose_headers(EXPOSED)
        .max_age(3_600)
}
