//! `POST /webhooks/livekit`: what LiveKit tells of its rooms.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use greenroom_core::Greenroom;

use crate::extract::RawBody;
use crate::problem::Problem;

/// The largest webhook, in bytes: rooms and participants may have a lot of metadata.
const LIMIT: usize = 1024 * 1024;

/// Answers when what the webhook says is committed: until then LiveKit sends it again.
pub async fn livekit(
    request: HttpRequest,
    body: RawBody<LIMIT>,
    greenroom: Data<Greenroom>,
) -> Result<HttpResponse, Problem> {
    // LiveKit's own token, without a scheme. One that is missing is one that does not hold.
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok()).unwrap_or_default();
    greenroom.receive_webhook(authorization, &body.0).await?;
    Ok(HttpResponse::Ok().finish())
}
