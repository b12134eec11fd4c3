//! Real databases, LiveKit servers, agent workers and users, for tests and `cargo xtask` only.

#[cfg(feature = "livekit")]
pub mod agent;
#[cfg(feature = "livekit")]
pub mod browser_page;
pub mod caller;
mod endless_server;
pub mod env;
#[cfg(feature = "livekit")]
pub mod http;
#[cfg(feature = "livekit")]
mod json_lines;
#[cfg(feature = "livekit")]
pub mod livekit;
pub mod paths;
#[cfg(feature = "pg")]
pub mod pg;
pub mod ports;
pub mod process;
mod random;
#[cfg(feature = "livekit")]
pub mod recording_proxy;
pub mod tools;
pub mod unix_user;
#[cfg(feature = "livekit")]
pub mod user;
mod wait;

pub use self::endless_server::endless_server;
pub use self::random::random_hex;
pub use self::wait::{sleep_for, wait_until};
