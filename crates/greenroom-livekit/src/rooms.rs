//! The port to LiveKit's rooms, with its real form and its twin in memory.

use async_trait::async_trait;
use chrono::{DateTime, Duration, Utc};
use greenroom_domain::RoomName;
use greenroom_domain::template::ReconnectWindow;
use livekit_protocol::{CreateRoomRequest, RoomConfiguration};

use crate::{Dispatch, LiveKitError};

pub mod livekit;
pub mod memory;
mod twirp;

/// LiveKit's rooms, as far as Greenroom opens and watches them.
#[async_trait]
pub trait Rooms: Send + Sync + 'static {
    /// Opens the room and asks for its agent, in one call that is idempotent by name.
    ///
    /// That the agent was asked for does not mean that it comes: LiveKit answers the same when no
    /// worker took the job.
    async fn create(&self, name: &RoomName, settings: &RoomSettings) -> Result<(), LiveKitError>;

    /// Whether LiveKit answers, and accepts our key.
    async fn check(&self) -> Result<(), LiveKitError>;
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
    /// The settings of a room that must be joined by `join_by`, as of `at`.
    #[must_use]
    pub fn new(
        join_by: DateTime<Utc>,
        at: DateTime<Utc>,
        reconnect_window: ReconnectWindow,
        dispatch: Dispatch,
    ) -> Self {
        // Ten seconds more: LiveKit counts from a truncated second, and our own expiry, which
        // knows why the room goes, shall come first.
        let left = (join_by - at).max(Duration::zero()) + Duration::seconds(10);
        Self {
            empty_timeout: u32::try_from(left.num_seconds()).unwrap_or(u32::MAX),
            departure_timeout: reconnect_window.get().unsigned_abs(),
            dispatch,
        }
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
