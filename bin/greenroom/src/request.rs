//! The middleware of every request: its id, its log span, and the problem body of a failure.

use actix_web::HttpResponse;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::http::header::HeaderValue;
use actix_web::middleware::Next;
use tracing::Instrument;
use uuid::Uuid;

use crate::problem::{Problem, REQUEST_ID};

/// Middleware that gives each request an id and a log span, and each failure a problem body.
pub async fn handle(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id = request_id(&request);
    // The span has the highest level, so that no filter removes the request's id from log lines.
    let span = tracing::error_span!("request", request_id = %id, method = %request.method(), path = request.path());
    async {
        let response = next.call(request).await?;
        tracing::debug!(status = response.status().as_u16(), "completed request");
        let problem = response.response().error().map(Problem::from_actix);
        let mut response = match problem {
            Some(problem) => replace_body(response, problem.respond(&id)),
            None => response.map_into_boxed_body(),
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        Ok(response)
    }
    .instrument(span)
    .await
}

/// Replaces a failed response by its problem and keeps the headers that other middleware has set.
/// Without the CORS headers, a page of another origin could not read the failure.
fn replace_body(
    response: ServiceResponse<impl MessageBody>,
    mut problem: HttpResponse,
) -> ServiceResponse<BoxBody> {
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            problem.headers_mut().append(name.clone(), value.clone());
        }
    }
    response.into_response(problem)
}

/// Returns the `x-request-id` of the caller if it is valid, or a new id.
#[expect(clippy::disallowed_methods, reason = "a request's id is not an id of the domain")]
fn request_id(request: &ServiceRequest) -> String {
    let sent = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match sent {
        Some(id) if is_request_id(id) => id.to_owned(),
        _ => Uuid::now_v7().to_string(),
    }
}

/// Returns whether an id is short and safe to log: 1 to 128 letters, digits, dots, underscores and
/// hyphens.
fn is_request_id(id: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&id.len()) && id.bytes().all(safe)
}
