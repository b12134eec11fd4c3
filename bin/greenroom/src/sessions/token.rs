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

/// 200, and that nobody caches the token.
pub struct Refreshed(StartedBody);

/// A fresh token for a session that is not over: for the same room and the same participant. The
/// tokens before it stay good until they expire. There need be no body, and one that is there is
/// ignored.
#[api_v2_operation(
    tags(Sessions),
    operation_id = "refresh_session_token",
    summary = "Get a fresh token"
)]
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
