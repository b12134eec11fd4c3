//! Sessions over HTTP: the handlers, and the response bodies that they share.

pub mod end;
pub mod query;
pub mod start;
pub mod timeline;
pub mod token;
mod token_source;

use std::collections::BTreeMap;

use greenroom_core::domain::{EndReason, Lenient, SessionId};
use greenroom_core::{Session, StartedSession};
use paperclip::actix::Apiv2Schema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::problem::{Code, Problem};
use crate::time::Time;

/// A session.
#[derive(Debug, Serialize, Apiv2Schema)]
#[openapi(rename = "Session")]
pub struct SessionBody {
    /// The session's id, a UUID of version 7.
    id: Uuid,
    /// The name of the LiveKit room.
    room_name: String,
    /// `ended`, `expired` and `failed` are final.
    status: &'static str,
    /// When the user first joined. Null if the user has not joined.
    started_at: Option<Time>,
    /// When the session ended. Null until then.
    ended_at: Option<Time>,
    /// The template that the session was started from.
    session_template_id: Uuid,
    /// The user of the session. Null for a guest.
    user_id: Option<String>,
    /// What the user may publish. Null means everything.
    modality_profile: Option<String>,
    /// The panels that a client shows. Null leaves the choice to the client.
    enabled_panels: Option<Vec<String>>,
    /// When the session was started.
    created_at: Time,
    /// The latest expiry of all tokens that were issued for the session.
    token_expiry: Time,
    /// Why the session is over. Null until then.
    end_reason: Option<&'static str>,
    /// The state of the agent. It keeps its last value after the session is over.
    agent_status: &'static str,
    /// The metadata of the start request. Always null for end users.
    metadata: Option<BTreeMap<String, Value>>,
    /// The session expires if the user has not joined by this time.
    join_by: Time,
}

/// A session and a token for its room. `server_url` and `participant_token` repeat `livekit_url`
/// and `access_token` under the names that LiveKit SDKs expect.
#[derive(Serialize, Apiv2Schema)]
#[openapi(rename = "StartedSession")]
pub struct StartedBody {
    /// The session's id.
    session_id: Uuid,
    /// The name of the LiveKit room.
    room_name: String,
    /// The token with which the user joins the room.
    access_token: String,
    /// The URL to which the client connects.
    livekit_url: String,
    /// When this token expires. The expiry limits connecting; a connected user stays.
    token_expiry: Time,
    /// The same as `livekit_url`, under the name that LiveKit SDKs expect.
    server_url: String,
    /// The same as `access_token`, under the name that LiveKit SDKs expect.
    participant_token: String,
    /// The user's identity in the room: the `user_id`, or for a guest `guest-` and eight
    /// hexadecimal digits.
    participant_identity: String,
    /// The session expires if the user has not joined by this time.
    join_by: Time,
}

/// Turns `None` into a 404: the session does not exist, or the caller may not see it.
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
            token_expiry: Time(started.token_expiry),
            server_url: started.livekit_url,
            participant_token: started.access_token,
            participant_identity: session.participant_identity.to_string(),
            join_by: Time(session.join_by),
        }
    }
}

impl From<Session> for SessionBody {
    fn from(session: Session) -> Self {
        Self {
            id: session.id.0,
            room_name: session.room_name.into(),
            status: session.status.as_str(),
            started_at: session.started_at.map(Time),
            ended_at: session.ended_at.map(Time),
            session_template_id: session.session_template_id.0,
            user_id: session.user_id.map(Into::into),
            modality_profile: session.modality_profile.map(|profile| profile.to_string()),
            enabled_panels: session.enabled_panels.map(Into::into),
            created_at: Time(session.created_at),
            token_expiry: Time(session.token_expiry),
            end_reason: session.end_reason.map(Lenient::<EndReason>::as_str),
            agent_status: session.agent_status.as_str(),
            metadata: session.metadata.map(|metadata| metadata.into_map().into_iter().collect()),
            join_by: Time(session.join_by),
        }
    }
}
