//! The testkit on the real parts: it is believed because these were seen to work.

mod livekit;
mod pg;
