//! The `Rooms` implementation that calls a LiveKit server.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use greenroom_domain::lifecycle::{DispatchOwner, Job, Participant, ParticipantKind};
use greenroom_domain::{AgentName, RoomName, lifecycle};
use livekit_protocol::participant_info::{Kind, State};
use livekit_protocol::{
    AgentDispatch as ProtoDispatch, CreateAgentDispatchRequest, DeleteAgentDispatchRequest,
    DeleteRoomRequest, DeleteRoomResponse, JobStatus, ListAgentDispatchRequest,
    ListAgentDispatchResponse, ListParticipantsRequest, ListParticipantsResponse, ListRoomsRequest,
    ListRoomsResponse, ParticipantInfo, Room, SendDataRequest, SendDataResponse,
};

use super::twirp::{Grant, NODE_TIMEOUT, TwirpClient};
use super::{ON_BEHALF, RoomList, RoomSettings, Rooms};
use crate::{AgentDispatch, LiveKitConfig, LiveKitError};

const CREATE_ROOM: &str = "RoomService/CreateRoom";
const LIST_ROOMS: &str = "RoomService/ListRooms";
const DELETE_ROOM: &str = "RoomService/DeleteRoom";
const LIST_PARTICIPANTS: &str = "RoomService/ListParticipants";
const SEND_DATA: &str = "RoomService/SendData";
const LIST_DISPATCH: &str = "AgentDispatchService/ListDispatch";
const CREATE_DISPATCH: &str = "AgentDispatchService/CreateDispatch";
const DELETE_DISPATCH: &str = "AgentDispatchService/DeleteDispatch";

/// A name that no session's room has, so that listing it returns an empty list.
const NO_ROOM: &str = "greenroom.check";

/// Time after which a list that is too large or too slow is no longer halved. The last call may take
/// two more seconds, and the keeper has eight for the whole batch. LiveKit is asked once whether it
/// responds at all.
const HALVING_TIMEOUT: Duration = Duration::from_secs(4);

/// The [`Rooms`] of a LiveKit server.
pub struct LiveKitRooms {
    twirp: TwirpClient,
}

impl LiveKitRooms {
    /// Creates the client without calling LiveKit.
    ///
    /// # Errors
    /// Returns [`LiveKitError::Refused`] if the HTTP client cannot be created.
    pub fn new(config: &LiveKitConfig) -> Result<Self, LiveKitError> {
        Ok(Self { twirp: TwirpClient::new(config)? })
    }
}

#[async_trait]
impl Rooms for LiveKitRooms {
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        let request = settings.to_request(name);
        let created: Room = self.twirp.call(CREATE_ROOM, Grant::Create, &request).await?;
        // An empty body is a valid message with default values, so check the name.
        if created.name == request.name {
            return Ok(created.sid);
        }
        Err(LiveKitError::Refused("the response to CreateRoom does not name the room".to_owned()))
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.list_rooms(vec![NO_ROOM.to_owned()]).await.map(drop)
    }

    /// Halves a list that is larger than a response may be, or that takes longer than a call may:
    /// agents write up to 64 kB of metadata into each room.
    async fn list(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError> {
        let give_up_at = Instant::now() + HALVING_TIMEOUT;
        // LiveKit reads an empty list as all rooms.
        let mut pending = if names.is_empty() { Vec::new() } else { vec![names] };
        let mut list = RoomList::new();
        let mut latest_error = LiveKitError::TooLarge;
        let mut responds = false;
        while let Some(names) = pending.pop() {
            if Instant::now() >= give_up_at {
                list.extend(unlisted(names, &latest_error));
                continue;
            }
            match self.list_part(names).await {
                Ok(existing) => list.extend(existing),
                Err(error) => {
                    if !self.is_caused_by_rooms(&error, responds).await {
                        return Err(error);
                    }
                    responds = true;
                    if let [_] = names {
                        list.extend(unlisted(names, &error));
                    } else {
                        let (first, second) = names.split_at(names.len() / 2);
                        pending.extend([second, first]);
                    }
                    latest_error = error;
                }
            }
        }
        Ok(list)
    }

    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        let request = ListParticipantsRequest { room: name.to_string() };
        let listed: Result<ListParticipantsResponse, _> =
            self.twirp.call(LIST_PARTICIPANTS, Grant::Admin(name), &request).await;
        let listed = unless_missing(listed)?;
        Ok(listed.unwrap_or_default().participants.into_iter().map(participant).collect())
    }

    async fn dispatches(
        &self,
        name: &RoomName,
        agent: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError> {
        let request =
            ListAgentDispatchRequest { room: name.to_string(), dispatch_id: String::new() };
        let (timeout, grant) = (NODE_TIMEOUT, Grant::Admin(name));
        let listed: Result<ListAgentDispatchResponse, _> =
            self.twirp.call_within(timeout, LIST_DISPATCH, grant, &request).await;
        let listed = unless_missing(listed)?.unwrap_or_default().agent_dispatches;
        Ok(listed.into_iter().map(|listed| dispatch(listed, agent)).collect())
    }

    async fn dispatch(
        &self,
        name: &RoomName,
        dispatch: &AgentDispatch,
    ) -> Result<(), LiveKitError> {
        let request = CreateAgentDispatchRequest {
            room: name.to_string(),
            agent_name: dispatch.agent_name().to_owned(),
            metadata: dispatch.metadata().to_owned(),
            ..CreateAgentDispatchRequest::default()
        };
        let created: ProtoDispatch =
            self.twirp.call(CREATE_DISPATCH, Grant::Admin(name), &request).await?;
        if created.room == request.room {
            return Ok(());
        }
        Err(LiveKitError::Refused(
            "the response to CreateDispatch does not name the room".to_owned(),
        ))
    }

    async fn delete_dispatch(&self, name: &RoomName, id: &str) -> Result<(), LiveKitError> {
        let request =
            DeleteAgentDispatchRequest { room: name.to_string(), dispatch_id: id.to_owned() };
        let deleted: Result<ProtoDispatch, _> =
            self.twirp.call(DELETE_DISPATCH, Grant::Admin(name), &request).await;
        unless_missing(deleted).map(drop)
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        let request = DeleteRoomRequest { room: name.to_string() };
        let deleted: Result<DeleteRoomResponse, _> =
            self.twirp.call(DELETE_ROOM, Grant::Create, &request).await;
        unless_missing(deleted).map(drop)
    }

    async fn send(&self, name: &RoomName, topic: &str, data: Vec<u8>) -> Result<(), LiveKitError> {
        let request = SendDataRequest {
            room: name.to_string(),
            data,
            topic: Some(topic.to_owned()),
            ..SendDataRequest::default()
        };
        let sent: Result<SendDataResponse, _> =
            self.twirp.call(SEND_DATA, Grant::Admin(name), &request).await;
        unless_missing(sent).map(drop)
    }
}

impl LiveKitRooms {
    async fn list_rooms(&self, names: Vec<String>) -> Result<Vec<Room>, LiveKitError> {
        let request = ListRoomsRequest { names };
        let listed: ListRoomsResponse = self.twirp.call(LIST_ROOMS, Grant::List, &request).await?;
        Ok(listed.rooms)
    }

    /// Returns whether a list failed because its rooms are large. A list that takes too long is no
    /// outage if LiveKit responds to a small call; `responds` means that it has done so.
    async fn is_caused_by_rooms(&self, error: &LiveKitError, responds: bool) -> bool {
        match error {
            LiveKitError::TooLarge => true,
            LiveKitError::Timeout => responds || self.check().await.is_ok(),
            _ => false,
        }
    }

    /// Returns the existing rooms among `names`, as far as one response can list them.
    async fn list_part(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError> {
        let existing = self.list_rooms(names.iter().map(ToString::to_string).collect()).await?;
        let asked: HashSet<_> = names.iter().collect();
        let with_sid = |room: Room| {
            let name = RoomName::try_from(room.name).ok()?;
            asked.contains(&name).then_some((name, Ok(room.sid)))
        };
        Ok(existing.into_iter().filter_map(with_sid).collect())
    }
}

/// The entries of rooms that could not be listed.
fn unlisted(
    names: &[RoomName],
    error: &LiveKitError,
) -> impl Iterator<Item = (RoomName, Result<String, LiveKitError>)> {
    names.iter().map(|name| (name.clone(), Err(error.clone())))
}

/// Converts [`LiveKitError::NotFound`] to `None`.
fn unless_missing<T>(response: Result<T, LiveKitError>) -> Result<Option<T>, LiveKitError> {
    match response {
        Err(LiveKitError::NotFound) => Ok(None),
        response => response.map(Some),
    }
}

fn participant(info: ParticipantInfo) -> Participant {
    let kind = match info.kind() {
        // An avatar joins in addition to its agent.
        Kind::Agent if info.attributes.contains_key(ON_BEHALF) => ParticipantKind::Other,
        Kind::Standard => ParticipantKind::User,
        Kind::Agent => ParticipantKind::Agent,
        _ => ParticipantKind::Other,
    };
    let is_active = info.state() == State::Active;
    Participant { identity: info.identity, sid: info.sid, kind, is_active }
}

fn dispatch(listed: ProtoDispatch, agent: Option<&AgentName>) -> lifecycle::Dispatch {
    let owner = match listed.agent_name.as_str() {
        "" => DispatchOwner::Unnamed,
        AgentName::UNSERVED => DispatchOwner::Unserved,
        name if agent.is_some_and(|agent| agent.as_str() == name) => DispatchOwner::Session,
        _ => DispatchOwner::Other,
    };
    let state = listed.state.unwrap_or_default();
    let jobs = state.jobs.into_iter().map(|job| {
        let state = job.state.unwrap_or_default();
        Job {
            is_live: matches!(state.status(), JobStatus::JsPending | JobStatus::JsRunning),
            participant_identity: state.participant_identity,
        }
    });
    lifecycle::Dispatch { id: listed.id, owner, created_at: state.created_at, jobs: jobs.collect() }
}
