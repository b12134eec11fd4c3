//! `POST /webhooks/livekit`: receives LiveKit's events.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use greenroom_core::Greenroom;

use crate::extract::RawBody;
use crate::problem::Problem;

/// Maximum size of a webhook in bytes. Rooms and participants may have much metadata.
const MAX_WEBHOOK_BYTES: usize = 1024 * 1024;

/// Responds after the event is committed. If the response is a failure, LiveKit sends the webhook
/// again.
pub async fn receive(
    request: HttpRequest,
    body: RawBody<MAX_WEBHOOK_BYTES>,
    greenroom: Data<Greenroom>,
) -> Result<HttpResponse, Problem> {
    // The header contains LiveKit's token without a scheme. A missing token is treated as invalid.
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok()).unwrap_or_default();
    greenroom.receive_webhook(authorization, &body.0).await?;
    Ok(HttpResponse::Ok().finish())
}
