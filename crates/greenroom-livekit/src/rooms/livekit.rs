//! The rooms of a real LiveKit server.

use std::time::Duration;

use async_trait::async_trait;
use greenroom_domain::RoomName;
use livekit_api::services::room::RoomClient;
use livekit_api::services::{ServerError, ServiceError};
use secrecy::ExposeSecret;

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
    rooms: RoomClient,
}

impl LiveKitRooms {
    /// # Errors
    /// When no HTTP client can be made; nothing is called yet.
    pub fn new(config: &LiveKitConfig) -> Result<Self, LiveKitError> {
        let rooms = RoomClient::with_api_key(
            &config.api_url.http(),
            config.api_key.expose_secret(),
            config.api_secret.expose_secret(),
        );
        Ok(Self {
            twirp: TwirpClient::new(config)?,
            // Failover would replay requests against other regions, dispatches among them.
            rooms: rooms.with_failover(false).with_request_timeout(CALL_TIMEOUT),
        })
    }
}

#[async_trait]
impl Rooms for LiveKitRooms {
    async fn create(&self, name: &RoomName, settings: &RoomSettings) -> Result<(), LiveKitError> {
        self.twirp.create_room(&settings.to_request(name)).await
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.rooms.list_rooms(vec![NO_ROOM.to_owned()]).await.map(drop).map_err(service_error)
    }
}

fn service_error(error: ServiceError) -> LiveKitError {
    match error {
        ServiceError::Twirp(ServerError::Request(error)) => LiveKitError::transport(error),
        ServiceError::Twirp(ServerError::Twirp(error)) => match error.code.as_str() {
            "unavailable" | "resource_exhausted" => LiveKitError::Unavailable(error.to_string()),
            "deadline_exceeded" => LiveKitError::Timeout,
            _ => LiveKitError::Refused(error.to_string()),
        },
        error => LiveKitError::Refused(error.to_string()),
    }
}
