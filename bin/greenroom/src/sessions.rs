//! Sessions over HTTP: what they look like on the wire.

pub mod end;
pub mod query;
pub mod start;
pub mod timeline;
pub mod token;
mod token_source;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use greenroom_core::domain::{EndReason, SessionId};
use greenroom_core::{Session, StartedSession};
use paperclip::actix::Apiv2Schema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::problem::{Code, Problem};

/// A session.
#[derive(Debug, Serialize, Apiv2Schema)]
#[openapi(rename = "Session")]
pub struct SessionBody {
    id: Uuid,
    /// The LiveKit room.
    room_name: String,
    /// Where the session stands.
    status: &'static str,
    /// When the user joined.
    started_at: Option<DateTime<Utc>>,
    /// When it was over.
    ended_at: Option<DateTime<Utc>>,
    session_template_id: Uuid,
    user_id: Option<String>,
    /// What the user may publish; null restricts nothing.
    modality_profile: Option<String>,
    /// The panels a client shows; null leaves the choice to it.
    enabled_panels: Option<Vec<String>>,
    created_at: DateTime<Utc>,
    /// The latest expiry of the tokens handed out.
    token_expiry: DateTime<Utc>,
    /// Why it is over.
    end_reason: Option<&'static str>,
    /// Whether the agent is known to be there.
    agent_status: &'static str,
    /// As it was given at the start.
    metadata: Option<BTreeMap<String, Value>>,
    /// Until when somebody must have joined.
    join_by: DateTime<Utc>,
}

/// A session and the pass to its room. `server_url` and `participant_token` repeat `livekit_url` and
/// `access_token` in the words of LiveKit's SDKs.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "StartedSession")]
pub struct StartedBody {
    session_id: Uuid,
    room_name: String,
    access_token: String,
    livekit_url: String,
    /// Until when this token is good; of several, each has its own.
    token_expiry: DateTime<Utc>,
    server_url: String,
    participant_token: String,
    participant_identity: String,
    /// Until when somebody must have joined.
    join_by: DateTime<Utc>,
}

/// What was found of a session, unless there is none that the caller may see.
fn found<T>(found: Option<T>, id: SessionId) -> Result<T, Problem> {
    let detail = || format!("No session {id} in this organization.");
    found.ok_or_else(|| Problem::new(Code::SessionNotFound, detail()))
}

impl From<StartedSession> for StartedBody {
    fn from(started: StartedSession) -> Self {
        let session = started.session;
        Self {
            session_id: session.id.0,
            room_name: session.room_name.to_string(),
            access_token: started.access_token.clone(),
            livekit_url: started.livekit_url.clone(),
            token_expiry: started.token_expiry,
            server_url: started.livekit_url,
            participant_token: started.access_token,
            participant_identity: session.participant_identity.to_string(),
            join_by: session.join_by,
        }
    }
}

impl From<Session> for SessionBody {
    fn from(session: Session) -> Self {
        Self {
            id: session.id.0,
            room_name: session.room_name.to_string(),
            status: session.status.as_str(),
            started_at: session.started_at,
            ended_at: session.ended_at,
            session_template_id: session.session_template_id.0,
            user_id: session.user_id.map(|user| user.as_str().to_owned()),
            modality_profile: session.modality_profile.map(|profile| profile.to_string()),
            enabled_panels: session.enabled_panels.map(|panels| panels.as_slice().to_vec()),
            created_at: session.created_at,
            token_expiry: session.token_expiry,
            end_reason: session.end_reason.map(EndReason::as_str),
            agent_status: session.agent_status.as_str(),
            metadata: session.metadata.map(|metadata| metadata.into_map().into_iter().collect()),
            join_by: session.join_by,
        }
    }
}
