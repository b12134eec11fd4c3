//! `GET /api/v1/sessions` and `GET /api/v1/sessions/{session_id}`.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};
use greenroom_core::domain::{Invalid, SessionId, SessionStatus, UserId};
use greenroom_core::{Greenroom, Page, SessionFilter};
use paperclip::actix::{Apiv2Schema, api_v2_operation};
use serde::Deserialize;

use super::SessionBody;
use crate::auth::Caller;
use crate::extract::{FieldErrors, Params, PathId, refuse_parameters};
use crate::problem::{Code, Problem};

/// Which sessions, and which part of the list.
#[derive(Deserialize, Apiv2Schema)]
pub struct ListParams {
    /// 1 to 200, else 50.
    limit: Option<String>,
    /// 0 to 10000, else 0.
    offset: Option<String>,
    /// One status, or several with commas.
    status: Option<String>,
    user_id: Option<String>,
}

/// A session by its id.
#[api_v2_operation(tags(Sessions), operation_id = "get_session", summary = "Get a session")]
pub async fn get(
    caller: Caller,
    request: HttpRequest,
    id: PathId<SessionId>,
    greenroom: Data<Greenroom>,
) -> Result<Json<SessionBody>, Problem> {
    refuse_parameters(&request, &["wait_for", "timeout_seconds"])?;
    let id = id.0;
    let session = greenroom.session(caller.organization, id).await?;
    let detail = || format!("No session {id} in this organization.");
    let session = session.ok_or_else(|| Problem::new(Code::SessionNotFound, detail()))?;
    Ok(Json(session.into()))
}

/// The organization's sessions, newest first.
#[api_v2_operation(tags(Sessions), operation_id = "list_sessions", summary = "List sessions")]
pub async fn list(
    caller: Caller,
    request: HttpRequest,
    params: Params<ListParams>,
    greenroom: Data<Greenroom>,
) -> Result<Json<Vec<SessionBody>>, Problem> {
    let not_yet = ["session_template_id", "created_after", "created_before", "cursor"];
    refuse_parameters(&request, &not_yet)?;
    let (filter, page) = parse(params.0)?;
    let sessions = greenroom.sessions(caller.organization, &filter, page).await?;
    Ok(Json(sessions.into_iter().map(SessionBody::from).collect()))
}

fn parse(params: ListParams) -> Result<(SessionFilter, Page), Problem> {
    let mut errors = FieldErrors::default();
    let limit = errors.take("limit", number(params.limit.as_deref(), 1, 200, 50));
    let offset = errors.take("offset", number(params.offset.as_deref(), 0, 10_000, 0));
    let status = errors.take("status", statuses(params.status.as_deref()));
    let user_id = errors.take("user_id", params.user_id.map(UserId::try_from).transpose());
    let parsed = (|| {
        let filter = SessionFilter { status: status?, user_id: user_id? };
        Some((filter, Page { limit: limit?, offset: offset? }))
    })();
    errors.finish(parsed)
}

/// A whole number of a query within its range.
pub fn number(text: Option<&str>, min: i64, max: i64, default: i64) -> Result<i64, Invalid> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| Invalid::new(format!("must be a whole number from {min} to {max}")))
}

fn statuses(text: Option<&str>) -> Result<Vec<SessionStatus>, Invalid> {
    text.map_or(Ok(Vec::new()), |text| text.split(',').map(str::parse).collect())
}
