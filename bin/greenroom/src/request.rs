//! What happens to every request: it gets an id, a span in the log, and a problem when it fails.

use actix_web::HttpResponse;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::Next;
use tracing::Instrument;
use uuid::Uuid;

use crate::problem::{Problem, REQUEST_ID};

/// The middleware around every route.
pub async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id = request_id(&request);
    // Of the highest level, so that whatever is logged has the id.
    let span = tracing::error_span!("request", request_id = %id, method = %request.method(), path = request.path());
    async {
        let response = next.call(request).await?;
        tracing::debug!(status = response.status().as_u16(), "answered");
        let problem = response.response().error().map(Problem::of);
        let mut response = match problem {
            Some(problem) => explained(response, problem.respond(&id)),
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

/// The response with the problem in its place, and with the headers others have given it: a page
/// of another origin must be allowed to read the failure, too.
fn explained(
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

/// The caller's own id when it is one, else a new one.
#[allow(clippy::disallowed_methods, reason = "a request's id is not the domain's")]
fn request_id(request: &ServiceRequest) -> String {
    let own = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match own {
        Some(id) if is_request_id(id) => id.to_owned(),
        _ => Uuid::now_v7().to_string(),
    }
}

fn is_request_id(id: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&id.len()) && id.bytes().all(safe)
}
