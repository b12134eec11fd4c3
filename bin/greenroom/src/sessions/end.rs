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

/// End a session
///
/// Disconnects all participants and deletes the room, immediately or as soon as LiveKit responds.
/// If the session is already over, nothing changes and the response shows the session as it is. The
/// request needs no body; a body of up to 64 KiB is ignored.
#[api_v2_operation(tags(Sessions), operation_id = "end_session")]
pub async fn end(
    caller: Allowed<SessionsEnd>,
    id: PathId<SessionId>,
    _body: RawBody,
    greenroom: Data<Greenroom>,
) -> Result<Json<SessionBody>, Problem> {
    let session = greenroom.end(&caller.0, id.0).await?;
    Ok(Json(found(session, id.0)?.into()))
}
