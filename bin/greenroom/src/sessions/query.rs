//! `GET /api/v1/sessions` and `GET /api/v1/sessions/{session_id}`.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use greenroom_core::domain::{
    Invalid, SessionId, SessionStatus, UserId, WaitCondition, WaitSeconds,
};
use greenroom_core::{Greenroom, PageRequest, SessionFilter};
use paperclip::actix::{Apiv2Schema, api_v2_operation};
use serde::Deserialize;

use super::{SessionBody, found};
use crate::auth::Allowed;
use crate::auth::scope::SessionsRead;
use crate::extract::{FieldErrors, Params, PathId, parse_or};
use crate::page::{PageOf, PageParams};
use crate::problem::Problem;

/// The wait if `timeout_seconds` is absent.
pub const DEFAULT_WAIT: WaitSeconds = WaitSeconds::constant::<{ WaitSeconds::MAX }>();

/// The filters of a list, and which page of it to return.
#[derive(Deserialize, Apiv2Schema)]
pub struct ListParams {
    /// Maximum number of sessions: 1 to 200, default 50.
    limit: Option<String>,
    /// Number of sessions to skip: 0 to 10,000. Not allowed with `cursor`.
    offset: Option<String>,
    /// Where to continue. Use it only as part of the `Link` header of the previous page.
    cursor: Option<String>,
    /// One status, or several separated by commas.
    status: Option<String>,
    /// Only sessions of this user. An end user may name only itself.
    user_id: Option<String>,
    /// Only sessions of this template.
    session_template_id: Option<String>,
    /// Only sessions that were created at this time or later, to the millisecond.
    created_after: Option<String>,
    /// Only sessions that were created before this time, to the millisecond.
    created_before: Option<String>,
}

/// The state to wait for before responding, and the maximum wait.
#[derive(Deserialize, Apiv2Schema)]
pub struct WaitParams {
    /// Hold the response until the session is in this state, can no longer reach it, or the wait
    /// times out. The response is the current session in all three cases.
    wait_for: Option<String>,
    /// Maximum wait: 1 to 30 seconds, default 30. Only allowed with `wait_for`.
    timeout_seconds: Option<String>,
}

/// Get a session
///
/// `wait_for` holds the response until the session changes, so that the caller does not have to
/// poll. A session that the caller may not see is 404.
#[api_v2_operation(tags(Sessions), operation_id = "get_session")]
pub async fn get(
    caller: Allowed<SessionsRead>,
    id: PathId<SessionId>,
    params: Params<WaitParams>,
    greenroom: Data<Greenroom>,
) -> Result<Json<SessionBody>, Problem> {
    let id = id.0;
    let session = match parse_wait(params.0)? {
        Some((condition, timeout)) => {
            greenroom.wait_for_session(&caller.0, id, condition, timeout).await?
        }
        None => greenroom.session(&caller.0, id).await?,
    };
    Ok(Json(found(session, id)?.into()))
}

/// List sessions
///
/// Lists the sessions of the organization, newest first. An end user sees only its own sessions. If
/// there are more sessions, the response has a `Link` header with the URL of the next page.
#[api_v2_operation(tags(Sessions), operation_id = "list_sessions")]
pub async fn list(
    caller: Allowed<SessionsRead>,
    params: Params<ListParams>,
    greenroom: Data<Greenroom>,
) -> Result<PageOf<SessionBody>, Problem> {
    let (filter, page) = parse_list(params.0)?;
    Ok(PageOf::of(greenroom.sessions(&caller.0, filter, page).await?))
}

fn parse_wait(params: WaitParams) -> Result<Option<(WaitCondition, WaitSeconds)>, Problem> {
    let mut errors = FieldErrors::default();
    let condition = params.wait_for.map(|text| text.parse()).transpose();
    let condition = errors.take("wait_for", condition);
    let seconds = match (&condition, params.timeout_seconds.as_deref()) {
        // serde ignores unknown parameters. Without this error, a misspelled `wait_for` would be
        // ignored and the response would not wait.
        (Some(None), Some(_)) => Err(Invalid::new("is only allowed with wait_for")),
        (_, text) => parse_or(text, DEFAULT_WAIT),
    };
    let seconds = errors.take("timeout_seconds", seconds);
    // The outer `None` means that a parameter is invalid, the inner `None` that `wait_for` is absent.
    let wait = condition.zip(seconds);
    let wait = wait.map(|(condition, seconds)| Some((condition?, seconds)));
    errors.finish(wait)
}

fn parse_list(params: ListParams) -> Result<(SessionFilter, PageRequest), Problem> {
    let mut errors = FieldErrors::default();
    let page = PageParams { limit: params.limit, offset: params.offset, cursor: params.cursor };
    let page = page.page(&mut errors);
    let status = errors.take("status", statuses(params.status.as_deref()));
    let user_id = errors.take("user_id", params.user_id.map(UserId::try_from).transpose());
    let template = params.session_template_id.map(|text| text.parse()).transpose();
    let session_template_id = errors.take("session_template_id", template);
    let created_after = errors.take("created_after", time(params.created_after.as_deref()));
    let created_before = errors.take("created_before", time(params.created_before.as_deref()));
    let parsed = (|| {
        let mut filter = SessionFilter::default();
        filter.status = status?;
        filter.user_id = user_id?;
        filter.session_template_id = session_template_id?;
        filter.created_after = created_after?;
        filter.created_before = created_before?;
        Some((filter, page?))
    })();
    errors.finish(parsed)
}

fn statuses(text: Option<&str>) -> Result<Vec<SessionStatus>, Invalid> {
    text.map_or(Ok(Vec::new()), |text| text.split(',').map(str::parse).collect())
}

/// Parses an RFC 3339 time in any time zone.
fn time(text: Option<&str>) -> Result<Option<DateTime<Utc>>, Invalid> {
    let parse = |text| DateTime::parse_from_rfc3339(text).map(|at| at.to_utc());
    text.map(parse)
        .transpose()
        .map_err(|_| Invalid::new("must be an RFC 3339 time such as 2026-11-22T14:30:22Z"))
}
