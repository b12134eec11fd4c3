//! Rooms in memory that open a room only when the test lets them.

use std::sync::Arc;

use async_trait::async_trait;
use greenroom_core::domain::lifecycle::Participant;
use greenroom_core::domain::{AgentName, RoomName, lifecycle};
use greenroom_core::{AgentDispatch, LiveKitError, MemoryRooms, RoomList, RoomSettings, Rooms};
use tokio::sync::{mpsc, oneshot};

/// Rooms whose `create` waits for the test.
pub struct GatedRooms {
    rooms: MemoryRooms,
    calls: mpsc::UnboundedSender<GatedCall>,
}

/// A call of `create` that waits. Dropping it lets LiveKit fail.
pub struct GatedCall {
    pub room: RoomName,
    open: oneshot::Sender<()>,
}

impl GatedCall {
    /// Lets LiveKit open the room.
    pub fn open(self) {
        self.open.send(()).unwrap();
    }
}

impl GatedRooms {
    /// Returns the rooms, and the calls of `create` in their order.
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<GatedCall>) {
        let (calls, received) = mpsc::unbounded_channel();
        (Arc::new(Self { rooms: MemoryRooms::default(), calls }), received)
    }
}

#[async_trait]
impl Rooms for GatedRooms {
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        let (open, opened) = oneshot::channel();
        let call = GatedCall { room: name.clone(), open };
        self.calls.send(call).unwrap_or_else(|_| panic!("the test is over"));
        match opened.await {
            Ok(()) => self.rooms.create(name, settings).await,
            Err(_) => Err(LiveKitError::Unavailable("the call is gated".to_owned())),
        }
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        self.rooms.check().await
    }

    async fn list(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError> {
        self.rooms.list(names).await
    }

    async fn participants(&self, name: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        self.rooms.participants(name).await
    }

    async fn dispatches(
        &self,
        name: &RoomName,
        agent: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError> {
        self.rooms.dispatches(name, agent).await
    }

    async fn dispatch(
        &self,
        name: &RoomName,
        dispatch: &AgentDispatch,
    ) -> Result<(), LiveKitError> {
        self.rooms.dispatch(name, dispatch).await
    }

    async fn delete_dispatch(&self, name: &RoomName, id: &str) -> Result<(), LiveKitError> {
        self.rooms.delete_dispatch(name, id).await
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        self.rooms.delete(name).await
    }

    async fn send(&self, name: &RoomName, topic: &str, data: Vec<u8>) -> Result<(), LiveKitError> {
        self.rooms.send(name, topic, data).await
    }
}
