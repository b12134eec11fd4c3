//! The port to LiveKit's rooms, with its real form and its twin in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use greenroom_domain::lifecycle::{self, Participant};
use greenroom_domain::template::ReconnectWindow;
use greenroom_domain::{AgentName, RoomName};
use livekit_protocol::{CreateRoomRequest, RoomConfiguration};

use crate::{Dispatch, LiveKitError};

pub mod livekit;
pub mod memory;
mod twirp;

/// The attribute of a participant that publishes for another.
pub(crate) const ON_BEHALF: &str = "lk.publish_on_behalf";

/// LiveKit's rooms, as far as Greenroom opens and watches them.
#[async_trait]
pub trait Rooms: Send + Sync + 'static {
    /// Opens the room and asks for its agent, in one call that is idempotent by name.
    ///
    /// That the agent was asked for does not mean that it comes: LiveKit answers the same when no
    /// worker took the job. The answer is LiveKit's own name for the room, its sid.
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError>;

    /// Whether LiveKit answers, and accepts our key.
    async fn check(&self) -> Result<(), LiveKitError>;

    /// Which of these rooms are there, by one call for hundreds, each with its sid.
    async fn list(&self, names: &[RoomName]) -> Result<HashMap<RoomName, String>, LiveKitError>;

    /// Who is in the room: nobody when it is not there.
    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError>;

    /// Every agent asked for in the room, with what workers have made of it. The session's own is
    /// the one of this name.
    ///
    /// A room that is not there, or whose node is gone, is [`LiveKitError::NoNode`], after three
    /// seconds.
    async fn dispatches(
        &self,
        name: &RoomName,
        agent: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError>;

    /// Asks for an agent in a room that is there. It is not idempotent: two are two agents.
    async fn dispatch(&self, name: &RoomName, dispatch: &Dispatch) -> Result<(), LiveKitError>;

    /// Takes back what was asked for, and with it the agent that came. One that is not there is
    /// deleted already.
    async fn delete_dispatch(&self, name: &RoomName, id: &str) -> Result<(), LiveKitError>;

    /// Disconnects everybody and deletes the room. One that is not there is deleted already.
    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError>;

    /// Sends everybody in the room a reliable data packet of this topic.
    async fn send(&self, name: &RoomName, topic: &str, data: Vec<u8>) -> Result<(), LiveKitError>;
}

/// What a room is opened with, by a call or by the token of the user who opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSettings {
    /// How long the room stays while nobody has come, in seconds.
    pub empty_timeout: u32,
    /// How long it stays after the last user left, in seconds.
    pub departure_timeout: u32,
    pub dispatch: Dispatch,
}

impl RoomSettings {
    /// The settings of a room that somebody must join within `join_within` seconds.
    #[must_use]
    pub fn new(join_within: u32, reconnect_window: ReconnectWindow, dispatch: Dispatch) -> Self {
        // Ten seconds more: LiveKit counts from a truncated second, and our own expiry, which
        // knows why the room goes, shall come first.
        Self {
            empty_timeout: join_within.saturating_add(10),
            departure_timeout: reconnect_window.get().unsigned_abs(),
            dispatch,
        }
    }

    /// The settings of a room that is opened to be deleted.
    #[must_use]
    pub fn closing() -> Self {
        Self { empty_timeout: 1, departure_timeout: 1, dispatch: Dispatch::unserved() }
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
