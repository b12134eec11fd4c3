//! Tests of rooms and webhooks on a real LiveKit server, with a real agent worker and a real user.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, like the tests")]

mod responses;
mod rooms;
mod webhooks;
