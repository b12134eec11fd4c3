//! The rooms of a real LiveKit server.

use std::time::Duration;

use async_trait::async_trait;
use greenroom_domain::RoomName;

use super::twirp::TwirpClient;
use super::{RoomSettings, Rooms};
use crate::{LiveKitConfig, LiveKitError};

/// How long one call may take. LiveKit answers within milliseconds, or not at all.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A room name no session has, so that a listing of it is an answer without content.
const NO_ROOM: &str = "greenroom.check";

/// The real [`Rooms`].
pub struct LiveKitRooms {
    twirp: TwirpClient,
}

impl LiveKitRooms {
    /// # Errors
    /// When no HTTP client can be made; nothing is called yet.
    pub fn new(config: &LiveKitConfig) -> Result<Self, LiveKitError> {
        Ok(Self { twirp: TwirpClient::new(config)? })
    }
}

#[async_trait]
impl Rooms for LiveKitRooms {
    async fn create(&self, name: &RoomName, settings: &RoomSettings) -> Result<(), LiveKitError> {
        self.twirp.create_room(&settings.to_request(name)).await
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.twirp.list_rooms(vec![NO_ROOM.to_owned()]).await.map(drop)
    }
}
