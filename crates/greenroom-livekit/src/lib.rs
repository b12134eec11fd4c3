//! LiveKit for Greenroom: join tokens, rooms and webhooks.
//!
//! This crate uses the types of livekit-api and livekit-protocol. It replaces livekit-api's client
//! and token encoder, which cannot open a room with its agent in one call, or set a past `nbf`.

#![deny(missing_docs)]

pub mod config;
pub mod dispatch;
pub mod error;
pub mod rooms;
pub mod token;
pub mod webhook;

pub use self::config::{ApiKey, ApiSecret, KeyPair, LiveKitConfig, ServerUrl};
pub use self::dispatch::{AgentDispatch, JobMetadata};
pub use self::error::LiveKitError;
pub use self::rooms::livekit::LiveKitRooms;
pub use self::rooms::memory::MemoryRooms;
pub use self::rooms::{RoomList, RoomSettings, Rooms};
pub use self::token::{JoinToken, TokenMetadata, TokenSigner};
