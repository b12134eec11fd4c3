//! The in-memory `Rooms` implementation, for tests without a LiveKit server.
//!
//! It does not simulate what LiveKit does with a dispatch.

use std::collections::HashMap;

use async_trait::async_trait;
use greenroom_domain::lifecycle::Participant;
use greenroom_domain::{AgentName, RoomName, lifecycle};
use parking_lot::Mutex;

use super::{RoomList, RoomSettings, Rooms};
use crate::{AgentDispatch, LiveKitError};

/// The [`Rooms`] in memory. Rooms have no participants and no dispatches.
#[derive(Debug, Default)]
pub struct MemoryRooms {
    rooms: Mutex<HashMap<RoomName, RoomSettings>>,
    lists: Mutex<HashMap<RoomName, usize>>,
    down: Mutex<bool>,
}

impl MemoryRooms {
    /// Returns the settings with which the room was opened. `None` means that it does not exist.
    #[must_use]
    pub fn get(&self, name: &RoomName) -> Option<RoomSettings> {
        self.rooms.lock().get(name).cloned()
    }

    /// Returns the number of rooms.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rooms.lock().len()
    }

    /// Returns how often a list asked for the room, whether or not it exists.
    #[must_use]
    pub fn lists(&self, name: &RoomName) -> usize {
        self.lists.lock().get(name).copied().unwrap_or(0)
    }

    /// Simulates an unreachable server: while `down` is true, every call fails.
    pub fn set_down(&self, down: bool) {
        *self.down.lock() = down;
    }
}

#[async_trait]
impl Rooms for MemoryRooms {
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        self.check().await?;
        // As in LiveKit, an existing room keeps its settings.
        self.rooms.lock().entry(name.clone()).or_insert_with(|| settings.clone());
        Ok(sid(name))
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        if *self.down.lock() {
            return Err(LiveKitError::Unavailable("the in-memory rooms are set down".to_owned()));
        }
        Ok(())
    }

    async fn list(&self, names: &[RoomName]) -> Result<RoomList, LiveKitError> {
        for name in names {
            *self.lists.lock().entry(name.clone()).or_default() += 1;
        }
        self.check().await?;
        let rooms = self.rooms.lock();
        let existing = names.iter().filter(|name| rooms.contains_key(*name));
        Ok(existing.map(|name| (name.clone(), Ok(sid(name)))).collect())
    }

    async fn participants(&self, _: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        self.check().await.map(|()| Vec::new())
    }

    async fn dispatches(
        &self,
        _: &RoomName,
        _: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError> {
        self.check().await.map(|()| Vec::new())
    }

    async fn dispatch(&self, _: &RoomName, _: &AgentDispatch) -> Result<(), LiveKitError> {
        self.check().await
    }

    async fn delete_dispatch(&self, _: &RoomName, _: &str) -> Result<(), LiveKitError> {
        self.check().await
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        self.check().await?;
        self.rooms.lock().remove(name);
        Ok(())
    }

    async fn send(&self, _: &RoomName, _: &str, _: Vec<u8>) -> Result<(), LiveKitError> {
        self.check().await
    }
}

fn sid(name: &RoomName) -> String {
    format!("RM_{name}")
}
