//! Looks into a server's rooms, past Greenroom, for what tests hold against it.

use std::time::Duration;

use anyhow::Result;
use livekit_api::services::{
    agent_dispatch::AgentDispatchClient,
    room::{RoomClient, SendDataOptions},
};
use livekit_protocol::{
    AgentDispatch, CreateAgentDispatchRequest, ParticipantInfo, Room,
    participant_info::{Kind, State},
};

use super::Server;
use crate::wait_until;

/// A room with a client of its own, the making of which takes longer than a look.
#[derive(Debug)]
pub struct View {
    client: RoomClient,
    room: String,
}

impl View {
    /// Looks at another room from now on.
    pub fn turn_to(&mut self, room: &str) {
        room.clone_into(&mut self.room);
    }

    /// The agents in the room that are active, and not still joining.
    ///
    /// # Errors
    /// When LiveKit does not answer.
    pub async fn agents(&self) -> Result<Vec<ParticipantInfo>> {
        let mut agents = self.client.list_participants(&self.room).await?;
        agents.retain(|one| one.kind() == Kind::Agent && one.state() == State::Active);
        Ok(agents)
    }
}

impl Server {
    /// Every room there is.
    ///
    /// # Errors
    /// When LiveKit does not answer.
    pub async fn rooms(&self) -> Result<Vec<Room>> {
        Ok(self.room_client().list_rooms(Vec::new()).await?)
    }

    /// The room of this name, if it is open.
    ///
    /// # Errors
    /// When LiveKit does not answer.
    pub async fn room(&self, name: &str) -> Result<Option<Room>> {
        Ok(self.room_client().list_rooms(vec![name.to_owned()]).await?.pop())
    }

    /// Who is in the room: nobody when it does not exist.
    ///
    /// # Errors
    /// When LiveKit does not answer.
    pub async fn participants(&self, room: &str) -> Result<Vec<ParticipantInfo>> {
        Ok(self.room_client().list_participants(room).await?)
    }

    /// A room to be looked at often, as long as the caller's runtime lives.
    #[must_use]
    pub fn view(&self, room: &str) -> View {
        View { client: self.room_client(), room: room.to_owned() }
    }

    /// Waits until an agent is in the room and active.
    ///
    /// # Errors
    /// When none came in time.
    pub async fn agent_in(&self, room: &str, timeout: Duration) -> Result<ParticipantInfo> {
        let view = self.view(room);
        wait_until("an agent in the room", timeout, || async {
            Ok(view.agents().await?.into_iter().next())
        })
        .await
    }

    /// The room's dispatches with their jobs.
    ///
    /// # Errors
    /// When LiveKit does not answer, or there is no such room.
    pub async fn dispatches(&self, room: &str) -> Result<Vec<AgentDispatch>> {
        Ok(self.dispatch_client().list_dispatch(room).await?)
    }

    /// Sends an agent into a room, which is opened when it does not exist.
    ///
    /// # Errors
    /// When LiveKit does not answer.
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

    /// Closes a room and disconnects who is in it.
    ///
    /// # Errors
    /// When LiveKit does not answer, or there is no such room.
    pub async fn delete_room(&self, room: &str) -> Result<()> {
        Ok(self.room_client().delete_room(room).await?)
    }

    /// Sends everybody in a room a data packet, as a backend does.
    ///
    /// # Errors
    /// When LiveKit does not answer, or there is no such room.
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
