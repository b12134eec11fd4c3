//! A scripted stand-in for LiveKit's API, for faults that a real server does not show on request, and
//! for more rooms than a real server can hold on the same machine.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use livekit_protocol::participant_info::{Kind, State as ParticipantState};
use livekit_protocol::{
    AgentDispatch, CreateAgentDispatchRequest, CreateRoomRequest, DeleteRoomRequest,
    ListAgentDispatchRequest, ListAgentDispatchResponse, ListParticipantsResponse,
    ListRoomsRequest, ListRoomsResponse, ParticipantInfo, Room,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How long LiveKit takes to report that a room's node is gone.
const NO_NODE_DELAY: Duration = Duration::from_secs(3);

/// Longer than any client waits.
const HANG: Duration = Duration::from_mins(1);

/// The fault of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// Every room exists until it is deleted, with its user and its agent.
    #[default]
    None,
    /// No call is answered.
    Hangs,
    /// Every call is refused at once.
    Refuses,
    /// Every call except the list of rooms is refused at once.
    OnlyListsRooms,
}

/// A running API. Dropping it stops it.
#[derive(Debug)]
pub struct ScriptedApi {
    url: String,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Script {
    user: String,
    agent: String,
    trouble: Mutex<Trouble>,
    dead_rooms: Mutex<HashSet<String>>,
    deleted_rooms: Mutex<HashSet<String>>,
    /// Deleted since the last [`ScriptedApi::take_deleted`].
    recently_deleted: Mutex<Vec<String>>,
    max_list: Mutex<Option<usize>>,
    refuses_messages: Mutex<bool>,
    lists: Mutex<Vec<(Instant, usize)>>,
    messages: Mutex<usize>,
}

impl ScriptedApi {
    /// Starts the API. Each room contains this user and this agent.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub async fn start(user: &str, agent: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("ws://{}", listener.local_addr()?);
        let script = Script { user: user.to_owned(), agent: agent.to_owned(), ..Script::default() };
        let script = Arc::new(script);
        let router =
            Router::new().route("/twirp/{method}/{name}", post(respond)).with_state(script.clone());
        let task = tokio::spawn(async move {
            // An error ends the API, and then every call fails.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, script, task })
    }

    /// Returns the URL for `LIVEKIT_URL`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets the fault from now on.
    pub fn set_trouble(&self, trouble: Trouble) {
        *self.script.trouble.lock() = trouble;
    }

    /// Sets the rooms whose node is gone.
    pub fn set_dead_rooms(&self, rooms: impl IntoIterator<Item = String>) {
        *self.script.dead_rooms.lock() = rooms.into_iter().collect();
    }

    /// Returns the rooms that were deleted since the last call.
    #[must_use]
    pub fn take_deleted(&self) -> Vec<String> {
        std::mem::take(&mut self.script.recently_deleted.lock())
    }

    /// Sets the number of rooms above which a list is not answered, as if the rooms were heavy.
    pub fn set_max_list(&self, rooms: usize) {
        *self.script.max_list.lock() = Some(rooms);
    }

    /// Sets whether data messages to participants are refused.
    pub fn set_refuses_messages(&self, refuses: bool) {
        *self.script.refuses_messages.lock() = refuses;
    }

    /// Returns the number of data messages that were sent to participants.
    #[must_use]
    pub fn messages(&self) -> usize {
        *self.script.messages.lock()
    }

    /// Returns the time of each list of rooms so far, with the number of its rooms.
    #[must_use]
    pub fn lists(&self) -> Vec<(Instant, usize)> {
        self.script.lists.lock().clone()
    }
}

impl Drop for ScriptedApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Responds to a call of a method such as `livekit.RoomService/ListRooms`.
async fn respond(
    State(script): State<Arc<Script>>,
    Path((_, method)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let trouble = *script.trouble.lock();
    match trouble {
        Trouble::OnlyListsRooms if method != "ListRooms" => {
            return StatusCode::FORBIDDEN.into_response();
        }
        Trouble::None | Trouble::OnlyListsRooms => {}
        Trouble::Hangs => sleep(HANG).await,
        Trouble::Refuses => return StatusCode::FORBIDDEN.into_response(),
    }
    match script.response(&method, body).await {
        Ok(message) => ([(CONTENT_TYPE, "application/protobuf")], message).into_response(),
        Err(response) => response,
    }
}

impl Script {
    async fn response(&self, method: &str, body: Bytes) -> Result<Vec<u8>, Response> {
        let malformed = |_| StatusCode::BAD_REQUEST.into_response();
        Ok(match method {
            "ListRooms" => {
                let ListRoomsRequest { names } =
                    ListRoomsRequest::decode(body).map_err(malformed)?;
                self.lists.lock().push((Instant::now(), names.len()));
                let max_list = *self.max_list.lock();
                if max_list.is_some_and(|max| names.len() > max) {
                    sleep(HANG).await;
                }
                let deleted = self.deleted_rooms.lock();
                let existing = names.into_iter().filter(|name| !deleted.contains(name));
                ListRoomsResponse { rooms: existing.map(room).collect() }.encode_to_vec()
            }
            "DeleteRoom" => {
                let room = DeleteRoomRequest::decode(body).map_err(malformed)?.room;
                if self.deleted_rooms.lock().insert(room.clone()) {
                    self.recently_deleted.lock().push(room);
                }
                Vec::new()
            }
            "ListParticipants" => self.participants().encode_to_vec(),
            "ListDispatch" => {
                let request = ListAgentDispatchRequest::decode(body).map_err(malformed)?;
                if self.dead_rooms.lock().contains(&request.room) {
                    sleep(NO_NODE_DELAY).await;
                    let no_node = r#"{"code": "unavailable", "msg": "no response from servers"}"#;
                    return Err((StatusCode::SERVICE_UNAVAILABLE, no_node).into_response());
                }
                ListAgentDispatchResponse::default().encode_to_vec()
            }
            "CreateRoom" => {
                let name = CreateRoomRequest::decode(body).map_err(malformed)?.name;
                self.deleted_rooms.lock().remove(&name);
                room(name).encode_to_vec()
            }
            "CreateDispatch" => {
                let request = CreateAgentDispatchRequest::decode(body).map_err(malformed)?;
                AgentDispatch { room: request.room, ..AgentDispatch::default() }.encode_to_vec()
            }
            "SendData" if *self.refuses_messages.lock() => {
                return Err(StatusCode::FORBIDDEN.into_response());
            }
            "SendData" => {
                *self.messages.lock() += 1;
                Vec::new()
            }
            // The response has no field that the client reads.
            _ => Vec::new(),
        })
    }

    fn participants(&self) -> ListParticipantsResponse {
        let participant = |identity: &str, kind: Kind| ParticipantInfo {
            identity: identity.to_owned(),
            sid: format!("PA_{identity}"),
            kind: kind.into(),
            state: ParticipantState::Active.into(),
            ..ParticipantInfo::default()
        };
        ListParticipantsResponse {
            participants: vec![
                participant(&self.user, Kind::Standard),
                participant(&self.agent, Kind::Agent),
            ],
        }
    }
}

fn room(name: String) -> Room {
    Room { sid: format!("RM_{name}"), name, ..Room::default() }
}
