//! The `Rooms` trait for LiveKit's rooms, with a real and an in-memory implementation.

use std::collections::HashMap;

use async_trait::async_trait;
use greenroom_domain::lifecycle::Participant;
use greenroom_domain::template::ReconnectWindow;
use greenroom_domain::{AgentName, RoomName, lifecycle};
use livekit_protocol::{CreateRoomRequest, RoomConfiguration};

use crate::{AgentDispatch, LiveKitError};

pub mod livekit;
pub mod memory;
mod twirp;

/// The attribute of a participant that publishes on behalf of another, such as an agent's avatar.
pub(crate) const ON_BEHALF: &str = "lk.publish_on_behalf";

/// The sid of each listed room. An error instead of a sid means that the room may or may not exist:
/// its part of the list is larger than 8 MiB ([`LiveKitError::TooLarge`]) or takes longer than two
/// seconds ([`LiveKitError::Timeout`]). An absent room does not exist.
pub type RoomList = HashMap<RoomName, Result<String, LiveKitError>>;

/// The calls to LiveKit with which Greenroom opens, observes and deletes rooms.
#[async_trait]
pub trait Rooms: Send + Sync + 'static {
    /// Opens the room and dispatches its agent in one call, and returns LiveKit's sid of the room.
    /// The call is idempotent by the room's name.
    ///
    /// Success does not mean that an agent joins: LiveKit sends the same response if no worker
    /// accepted the job.
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError>;

    /// Checks that LiveKit responds and accepts the API key.
    async fn check(&self) -> Result<(), LiveKitError>;

    /// Returns the existing rooms among `names`, and the rooms whose existence is unknown. One call
    /// can list hundreds of rooms. Other rooms in LiveKit's response are ignored.
    async fn list(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError>;

    /// Returns the participants in the room. A room that does not exist has no participants.
    ///
    /// LiveKit's response does not name the room, so a response about another room is accepted.
    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError>;

    /// Returns all dispatches in the room with their jobs. Dispatches of `agent` are marked as the
    /// session's.
    ///
    /// Returns [`LiveKitError::NoNode`] after three seconds if the room does not exist or its node
    /// is gone.
    async fn dispatches(
        &self,
        name: &RoomName,
        agent: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError>;

    /// Dispatches an agent to an existing room. This is not idempotent: two calls bring two agents.
    async fn dispatch(&self, name: &RoomName, dispatch: &AgentDispatch)
    -> Result<(), LiveKitError>;

    /// Deletes a dispatch and removes its agent from the room. Succeeds if the dispatch does not
    /// exist.
    async fn delete_dispatch(&self, name: &RoomName, id: &str) -> Result<(), LiveKitError>;

    /// Disconnects all participants and deletes the room. Succeeds if the room does not exist.
    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError>;

    /// Sends all participants in the room a reliable data packet with this topic. Succeeds if the
    /// room does not exist.
    async fn send(&self, name: &RoomName, topic: &str, data: Vec<u8>) -> Result<(), LiveKitError>;
}

/// The settings with which a call or the user's token opens a room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomSettings {
    /// Time in seconds after which LiveKit closes the room if no user has joined.
    pub empty_timeout: u32,
    /// Time in seconds after which LiveKit closes the room when its last user has left.
    pub departure_timeout: u32,
    /// The agent that is dispatched when the room is opened.
    pub dispatch: AgentDispatch,
}

impl RoomSettings {
    /// Returns the settings of a room that the user must join within `join_within` seconds.
    #[must_use]
    pub fn new(
        join_within: u32,
        reconnect_window: ReconnectWindow,
        dispatch: AgentDispatch,
    ) -> Self {
        // Add ten seconds, because LiveKit counts from a truncated second, and Greenroom must
        // expire the session before LiveKit closes the room.
        Self {
            empty_timeout: join_within.saturating_add(10),
            departure_timeout: reconnect_window.get().unsigned_abs(),
            dispatch,
        }
    }

    /// Returns the settings of a room that is opened only to be deleted.
    #[must_use]
    pub fn closing() -> Self {
        Self { empty_timeout: 1, departure_timeout: 1, dispatch: AgentDispatch::unserved() }
    }

    pub(crate) fn to_request(&self, name: &RoomName) -> CreateRoomRequest {
        CreateRoomRequest {
            name: name.as_str().to_owned(),
            empty_timeout: self.empty_timeout,
            departure_timeout: self.departure_timeout,
            agents: vec![self.dispatch.to_proto()],
            ..CreateRoomRequest::default()
        }
    }

    pub(crate) fn to_configuration(&self) -> RoomConfiguration {
        RoomConfiguration {
            empty_timeout: self.empty_timeout,
            departure_timeout: self.departure_timeout,
            agents: vec![self.dispatch.to_proto()],
            ..RoomConfiguration::default()
        }
    }
}
