//! `GET /api/v1/sessions/{session_id}/timeline`.

use std::collections::BTreeMap;

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use greenroom_core::domain::SessionId;
use greenroom_core::{Greenroom, TimelineEntry};
use paperclip::actix::{Apiv2Schema, api_v2_operation};
use serde::Serialize;
use serde_json::Value;

use super::found;
use crate::auth::Allowed;
use crate::auth::scope::SessionsRead;
use crate::extract::PathId;
use crate::problem::Problem;

/// Something that happened to a session.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "TimelineEntry")]
pub struct EntryBody {
    /// When Greenroom learned of it.
    at: DateTime<Utc>,
    /// What happened.
    event: &'static str,
    /// What else is known of it; null with an end user's token.
    detail: Option<BTreeMap<String, Value>>,
}

/// What happened to a session, oldest first.
#[api_v2_operation(
    tags(Sessions),
    operation_id = "get_session_timeline",
    summary = "Get a session's timeline"
)]
pub async fn get(
    caller: Allowed<SessionsRead>,
    id: PathId<SessionId>,
    greenroom: Data<Greenroom>,
) -> Result<Json<Vec<EntryBody>>, Problem> {
    let timeline = found(greenroom.timeline(&caller.0, id.0).await?, id.0)?;
    Ok(Json(timeline.into_iter().map(Into::into).collect()))
}

impl From<TimelineEntry> for EntryBody {
    fn from(entry: TimelineEntry) -> Self {
        Self {
            at: entry.at,
            event: entry.event.as_str(),
            detail: entry.detail.map(|detail| detail.into_map().into_iter().collect()),
        }
    }
}
