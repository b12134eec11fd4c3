//! Which pages may call from a browser (the CORS protocol of the Fetch standard).

use actix_cors::Cors;
use actix_web::http::header::{self, HeaderName};

use crate::problem::{RATE_LIMIT, RATE_LIMIT_REMAINING, RATE_LIMIT_RESET, REQUEST_ID};
use crate::sessions::start::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED};

/// What a page may read of an answer beside its body.
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

/// Lets pages of these origins call. Callers are known by their tokens, not by cookies, so no
/// credentials of the browser's are asked for.
pub fn allowing(origins: &[String]) -> Cors {
    let cors = origins.iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
    cors.allowed_methods(["GET", "POST", "PATCH", "DELETE"])
        .allowed_headers([header::AUTHORIZATION, header::CONTENT_TYPE, IDEMPOTENCY_KEY, REQUEST_ID])
        .expose_headers(EXPOSED)
        .max_age(3_600)
}
