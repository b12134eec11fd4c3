//! `GET /api/v1/sessions` and `GET /api/v1/sessions/{session_id}`.

use std::time::Duration;

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use greenroom_core::domain::{Invalid, SessionId, SessionStatus, UserId, WaitCondition};
use greenroom_core::{Greenroom, PageRequest, SessionFilter};
use paperclip::actix::{Apiv2Schema, api_v2_operation};
use serde::Deserialize;

use super::{SessionBody, found};
use crate::auth::Allowed;
use crate::auth::scope::SessionsRead;
use crate::extract::{FieldErrors, Params, PathId, number};
use crate::page::{PageOf, PageParams};
use crate::problem::Problem;

/// Which sessions, and which part of the list.
#[derive(Deserialize, Apiv2Schema)]
pub struct ListParams {
    /// How many at the most.
    limit: Option<String>,
    /// How many to skip; not beside a cursor.
    offset: Option<String>,
    /// Where to go on, as the Link header of the page before says.
    cursor: Option<String>,
    /// One status, or several with commas.
    status: Option<String>,
    /// Whose; an end user's token lists its own alone.
    user_id: Option<String>,
    session_template_id: Option<String>,
    /// Created then or later, to the millisecond.
    created_after: Option<String>,
    /// Created earlier, to the millisecond.
    created_before: Option<String>,
}

/// What to hold the answer for, and for how long.
#[derive(Deserialize, Apiv2Schema)]
pub struct WaitParams {
    /// Holds the answer until the session is that, can no longer become so, or the time is up. The
    /// answer is then the session as it is.
    wait_for: Option<String>,
    /// How many seconds at the most; only beside `wait_for`.
    timeout_seconds: Option<String>,
}

/// A session by its id.
#[api_v2_operation(tags(Sessions), operation_id = "get_session", summary = "Get a session")]
pub async fn get(
    caller: Allowed<SessionsRead>,
    id: PathId<SessionId>,
    params: Params<WaitParams>,
    greenroom: Data<Greenroom>,
) -> Result<Json<SessionBody>, Problem> {
    let id = id.0;
    let session = match parse_wait(params.0)? {
        Some((awaited, patience)) => {
            greenroom.wait_for_session(&caller.0, id, awaited, patience).await?
        }
        None => greenroom.session(&caller.0, id).await?,
    };
    Ok(Json(found(session, id)?.into()))
}

/// The organization's sessions, newest first; an end user's own, when the token is one's.
#[api_v2_operation(tags(Sessions), operation_id = "list_sessions", summary = "List sessions")]
pub async fn list(
    caller: Allowed<SessionsRead>,
    params: Params<ListParams>,
    greenroom: Data<Greenroom>,
) -> Result<PageOf<SessionBody>, Problem> {
    let (filter, page) = parse(params.0)?;
    Ok(PageOf::of(greenroom.sessions(&caller.0, filter, page).await?))
}

fn parse_wait(params: WaitParams) -> Result<Option<(WaitCondition, Duration)>, Problem> {
    let mut errors = FieldErrors::default();
    let awaited = params.wait_for.map(|text| text.parse()).transpose();
    let awaited = errors.take("wait_for", awaited);
    let seconds = match (&awaited, params.timeout_seconds.as_deref()) {
        // A misspelt wait_for is not silently no wait at all.
        (Some(None), Some(_)) => Err(Invalid::new("must stand beside wait_for")),
        (_, text) => number(text, 1, 30, 30),
    };
    let seconds = errors.take("timeout_seconds", seconds);
    let wait = awaited.zip(seconds);
    let wait = wait.map(|(awaited, seconds)| Some((awaited?, Duration::from_secs(seconds))));
    errors.finish(wait)
}

fn parse(params: ListParams) -> Result<(SessionFilter, PageRequest), Problem> {
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
        let filter = SessionFilter {
            status: status?,
            user_id: user_id?,
            session_template_id: session_template_id?,
            created_after: created_after?,
            created_before: created_before?,
        };
        Some((filter, page?))
    })();
    errors.finish(parsed)
}

fn statuses(text: Option<&str>) -> Result<Vec<SessionStatus>, Invalid> {
    text.map_or(Ok(Vec::new()), |text| text.split(',').map(str::parse).collect())
}

/// A time as RFC 3339 writes it, in whatever zone.
fn time(text: Option<&str>) -> Result<Option<DateTime<Utc>>, Invalid> {
    let parse = |text| DateTime::parse_from_rfc3339(text).map(|at| at.to_utc());
    text.map(parse)
        .transpose()
        .map_err(|_| Invalid::new("must be a time such as 2026-11-22T14:30:22Z"))
}
