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

/// An event of a session.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "TimelineEntry")]
pub struct EntryBody {
    /// When Greenroom learned of the event.
    at: DateTime<Utc>,
    /// The name of the event. Ignore unknown names, because later versions may add some.
    event: &'static str,
    /// Further data, such as LiveKit's own time. Null for end users.
    detail: Option<BTreeMap<String, Value>>,
}

/// Get a session's timeline
///
/// Lists the events of a session, oldest first.
#[api_v2_operation(tags(Sessions), operation_id = "get_session_timeline")]
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
