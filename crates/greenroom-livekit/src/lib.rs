//! Greenroom's LiveKit: the token a user joins with, and the rooms it opens.
//!
//! LiveKit's own crate does what it can; what it cannot (a room opened with its agent in one call,
//! a token whose `nbf` lies in the past) is here, over its own types.

pub mod config;
pub mod dispatch;
pub mod error;
pub mod rooms;
pub mod token;
pub mod webhook;

pub use config::{KeyPair, LiveKitConfig, ServerUrl};
pub use dispatch::{Dispatch, JobMetadata};
pub use error::LiveKitError;
pub use rooms::livekit::LiveKitRooms;
pub use rooms::memory::MemoryRooms;
pub use rooms::{RoomSettings, Rooms};
pub use token::{JoinToken, TokenMetadata, TokenSigner};
