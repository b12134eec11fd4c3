//! Tests of the testkit itself with real servers, so that other tests can rely on it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, like the tests")]

mod agent;
mod browser_page;
mod cluster;
mod livekit;
mod pg;
mod user;

use greenroom_testkit::livekit::Server;
use livekit_api::access_token::{AccessToken, VideoGrants};

/// Returns a token of the user `ann` for a room.
fn token(server: &Server, room: &str, grants: VideoGrants) -> String {
    token_of("ann", server, room, grants)
}

fn token_of(identity: &str, server: &Server, room: &str, grants: VideoGrants) -> String {
    AccessToken::with_api_key(server.api_key(), server.api_secret())
        .with_identity(identity)
        .with_grants(VideoGrants { room: room.to_owned(), room_join: true, ..grants })
        .to_jwt()
        .unwrap()
}
