//! Rooms in memory, for tests of rules and for trying things out without a server.
//!
//! What LiveKit really does with a dispatch, this never pretends to know.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use greenroom_domain::RoomName;

use super::{RoomSettings, Rooms};
use crate::LiveKitError;

/// The [`Rooms`] in memory.
#[derive(Debug, Default)]
pub struct MemoryRooms {
    rooms: Mutex<HashMap<RoomName, RoomSettings>>,
    down: Mutex<bool>,
}

impl MemoryRooms {
    /// The settings a room was opened with, if it is there.
    #[must_use]
    pub fn get(&self, name: &RoomName) -> Option<RoomSettings> {
        self.rooms().get(name).cloned()
    }

    /// How many rooms there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rooms().len()
    }

    /// From now on every call fails as it does when no server is there, or no longer.
    pub fn set_down(&self, down: bool) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = down;
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomName, RoomSettings>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Rooms for MemoryRooms {
    async fn create(&self, name: &RoomName, settings: &RoomSettings) -> Result<(), LiveKitError> {
        self.check().await?;
        // Like LiveKit's: a room that is there stays as it was opened.
        self.rooms().entry(name.clone()).or_insert_with(|| settings.clone());
        Ok(())
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        if *self.down.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(LiveKitError::Unavailable("the rooms in memory are down".to_owned()));
        }
        Ok(())
    }
}
