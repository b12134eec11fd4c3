//! `POST /api/v1/sessions/{session_id}/token`.

use actix_web::http::header;
use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, HttpResponse, Responder};
use greenroom_core::Greenroom;
use greenroom_core::domain::SessionId;
use paperclip::actix::{OperationModifier, api_v2_operation};
use paperclip::v2::models::DefaultOperationRaw;

use super::{StartedBody, found};
use crate::auth::Allowed;
use crate::auth::scope::SessionsStart;
use crate::extract::{PathId, RawBody};
use crate::problem::Problem;

/// The response of a token refresh: 200 with `Cache-Control: no-store`.
pub struct Refreshed(StartedBody);

/// Get a new token
///
/// The token is for the same room and the same participant. Earlier tokens stay valid until they
/// expire. If the session is over, or its `join_by` or maximum duration has passed, the response is
/// 409 `session_over`. The request needs no body; a body of up to 64 KiB is ignored.
#[api_v2_operation(tags(Sessions), operation_id = "refresh_session_token")]
pub async fn refresh(
    caller: Allowed<SessionsStart>,
    id: PathId<SessionId>,
    _body: RawBody,
    greenroom: Data<Greenroom>,
) -> Result<Refreshed, Problem> {
    let refreshed = greenroom.refresh_token(&caller.0, id.0).await?;
    Ok(Refreshed(found(refreshed, id.0)?.into()))
}

impl Responder for Refreshed {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(self.0)
    }
}

impl paperclip::v2::schema::Apiv2Schema for Refreshed {
    fn name() -> Option<String> {
        <StartedBody as paperclip::v2::schema::Apiv2Schema>::name()
    }

    fn raw_schema() -> paperclip::v2::models::DefaultSchemaRaw {
        <StartedBody as paperclip::v2::schema::Apiv2Schema>::raw_schema()
    }
}

impl OperationModifier for Refreshed {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Json::<StartedBody>::update_response(operation);
    }
}
