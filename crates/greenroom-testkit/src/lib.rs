//! Real databases, LiveKit servers, agent workers and callers, for tests and `cargo xtask` alone.

#[cfg(feature = "livekit")]
pub mod agent;
pub mod caller;
mod env;
#[cfg(feature = "livekit")]
pub mod http;
#[cfg(feature = "livekit")]
mod lines;
#[cfg(feature = "livekit")]
pub mod livekit;
#[cfg(feature = "livekit")]
pub mod page;
#[cfg(feature = "pg")]
pub mod pg;
pub mod place;
pub mod process;
#[cfg(feature = "livekit")]
pub mod tap;
pub mod tools;
#[cfg(feature = "livekit")]
pub mod user;
mod wait;

pub use wait::{pass, wait_until};
