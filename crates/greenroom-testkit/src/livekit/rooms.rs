//! Direct calls to LiveKit's API, with which tests check what Greenroom has done.

use std::time::Duration;

use anyhow::Result;
use livekit_api::services::agent_dispatch::AgentDispatchClient;
use livekit_api::services::room::{RoomClient, SendDataOptions};
use livekit_protocol::participant_info::{Kind, State};
use livekit_protocol::{AgentDispatch, CreateAgentDispatchRequest, ParticipantInfo, Room};

use super::Server;
use crate::wait_until;

/// Lists the agents of a room repeatedly. It keeps its HTTP client, because creating a client
/// takes longer than a call.
#[derive(Debug)]
pub struct RoomInspector {
    client: RoomClient,
    room: String,
}

impl RoomInspector {
    /// Selects another room.
    pub fn set_room(&mut self, room: &str) {
        room.clone_into(&mut self.room);
    }

    /// Returns the agents in the room that have finished joining.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond.
    pub async fn active_agents(&self) -> Result<Vec<ParticipantInfo>> {
        let mut participants = self.client.list_participants(&self.room).await?;
        participants.retain(|participant| {
            participant.kind() == Kind::Agent && participant.state() == State::Active
        });
        Ok(participants)
    }
}

impl Server {
    /// Returns all rooms.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond.
    pub async fn rooms(&self) -> Result<Vec<Room>> {
        Ok(self.room_client().list_rooms(Vec::new()).await?)
    }

    /// Returns the room with this name. `None` means that it does not exist.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond.
    pub async fn room(&self, name: &str) -> Result<Option<Room>> {
        Ok(self.room_client().list_rooms(vec![name.to_owned()]).await?.pop())
    }

    /// Returns the participants of a room. A room that does not exist has none.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond.
    pub async fn participants(&self, room: &str) -> Result<Vec<ParticipantInfo>> {
        Ok(self.room_client().list_participants(room).await?)
    }

    /// Returns an inspector for a room. It works only while the caller's Tokio runtime is alive.
    #[must_use]
    pub fn inspect_room(&self, room: &str) -> RoomInspector {
        RoomInspector { client: self.room_client(), room: room.to_owned() }
    }

    /// Waits until an agent has joined the room.
    ///
    /// # Errors
    /// Returns an error if no agent has joined within `timeout`.
    pub async fn wait_for_agent(&self, room: &str, timeout: Duration) -> Result<ParticipantInfo> {
        let inspector = self.inspect_room(room);
        wait_until("an agent in the room", timeout, || async {
            Ok(inspector.active_agents().await?.into_iter().next())
        })
        .await
    }

    /// Returns the dispatches of a room with their jobs.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond or the room does not exist.
    pub async fn dispatches(&self, room: &str) -> Result<Vec<AgentDispatch>> {
        Ok(self.dispatch_client().list_dispatch(room).await?)
    }

    /// Dispatches an agent to a room. LiveKit creates the room if it does not exist.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond.
    pub async fn dispatch(
        &self,
        room: &str,
        agent_name: &str,
        metadata: &str,
    ) -> Result<AgentDispatch> {
        let request = CreateAgentDispatchRequest {
            room: room.to_owned(),
            agent_name: agent_name.to_owned(),
            metadata: metadata.to_owned(),
            ..Default::default()
        };
        Ok(self.dispatch_client().create_dispatch(request).await?)
    }

    /// Deletes a room and disconnects its participants.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond or the room does not exist.
    pub async fn delete_room(&self, room: &str) -> Result<()> {
        Ok(self.room_client().delete_room(room).await?)
    }

    /// Sends a data packet to all participants of a room, as a backend does.
    ///
    /// # Errors
    /// Returns an error if LiveKit does not respond or the room does not exist.
    pub async fn send_data(&self, room: &str, topic: &str, payload: &[u8]) -> Result<()> {
        let options = SendDataOptions { topic: Some(topic.to_owned()), ..Default::default() };
        Ok(self.room_client().send_data(room, payload.to_owned(), options).await?)
    }

    pub(super) fn room_client(&self) -> RoomClient {
        RoomClient::with_api_key(&self.api_url(), &self.api_key, &self.api_secret)
            .with_failover(false)
            .with_request_timeout(Duration::from_secs(5))
    }

    fn dispatch_client(&self) -> AgentDispatchClient {
        AgentDispatchClient::with_api_key(&self.api_url(), &self.api_key, &self.api_secret)
            .with_failover(false)
            .with_request_timeout(Duration::from_secs(10))
    }
}
