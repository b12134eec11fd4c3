//! Rooms in memory, for tests of rules and for trying things out without a server.
//!
//! What LiveKit really does with a dispatch, this never pretends to know.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use greenroom_domain::lifecycle::{self, Participant};
use greenroom_domain::{AgentName, RoomName};

use super::{RoomSettings, Rooms};
use crate::{Dispatch, LiveKitError};

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
    async fn create(
        &self,
        name: &RoomName,
        settings: &RoomSettings,
    ) -> Result<String, LiveKitError> {
        self.check().await?;
        // Like LiveKit's: a room that is there stays as it was opened.
        self.rooms().entry(name.clone()).or_insert_with(|| settings.clone());
        Ok(sid(name))
    }

    async fn check(&self) -> Result<(), LiveKitError> {
        if *self.down.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(LiveKitError::Unavailable("the rooms in memory are down".to_owned()));
        }
        Ok(())
    }

    async fn list(&self, names: &[RoomName]) -> Result<HashMap<RoomName, String>, LiveKitError> {
        self.check().await?;
        let rooms = self.rooms();
        let there = names.iter().filter(|name| rooms.contains_key(*name));
        Ok(there.map(|name| (name.clone(), sid(name))).collect())
    }

    /// Nobody ever comes.
    async fn participants(&self, _: &RoomName) -> Result<Vec<Participant>, LiveKitError> {
        self.check().await.map(|()| Vec::new())
    }

    /// Nothing is ever listed: what becomes of a dispatch only LiveKit knows.
    async fn dispatches(
        &self,
        _: &RoomName,
        _: Option<&AgentName>,
    ) -> Result<Vec<lifecycle::Dispatch>, LiveKitError> {
        self.check().await.map(|()| Vec::new())
    }

    async fn dispatch(&self, _: &RoomName, _: &Dispatch) -> Result<(), LiveKitError> {
        self.check().await
    }

    async fn delete_dispatch(&self, _: &RoomName, _: &str) -> Result<(), LiveKitError> {
        self.check().await
    }

    async fn delete(&self, name: &RoomName) -> Result<(), LiveKitError> {
        self.check().await?;
        self.rooms().remove(name);
        Ok(())
    }

    async fn send(&self, _: &RoomName, _: &str, _: Vec<u8>) -> Result<(), LiveKitError> {
        self.check().await
    }
}

fn sid(name: &RoomName) -> String {
    format!("RM_{name}")
}
