//! The testkit on the real parts: it is believed because these were seen to work.

mod agent;
mod cluster;
mod livekit;
mod page;
mod pg;
mod user;

use greenroom_testkit::livekit::Server;
use livekit_api::access_token::{AccessToken, VideoGrants};

/// Ann's token for this room.
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
