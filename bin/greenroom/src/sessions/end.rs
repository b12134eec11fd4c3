//! `POST /api/v1/sessions/{session_id}/end`.

use actix_web::web::{Data, Json};
use greenroom_core::Greenroom;
use greenroom_core::domain::SessionId;
use paperclip::actix::api_v2_operation;

use super::{SessionBody, found};
use crate::auth::Allowed;
use crate::auth::scope::SessionsEnd;
use crate::extract::{PathId, RawBody};
use crate::problem::Problem;

/// End a session: everyone is disconnected and the room is deleted, at once or as soon as `LiveKit`
/// can. Ending one that is over already changes nothing and answers the same. There need be no body,
/// and one that is there is ignored.
#[api_v2_operation(tags(Sessions), operation_id = "end_session", summary = "End a session")]
pub async fn end(
    caller: Allowed<SessionsEnd>,
    id: PathId<SessionId>,
    _body: RawBody,
    greenroom: Data<Greenroom>,
) -> Result<Json<SessionBody>, Problem> {
    let session = greenroom.end(&caller.0, id.0).await?;
    Ok(Json(found(session, id.0)?.into()))
}
