//! Webhooks as LiveKit sends them: signed beforehand, and sent as fast as they are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use greenroom_testkit::livekit::Server;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::starts::USER;
use super::wire::Connection;

/// How many are sent at once, each on a connection that is kept.
pub const CONNECTIONS: usize = 64;

/// What the sids of told stays begin with: nobody else's do.
pub const SID: &str = "PA_told_";

/// How sending went.
pub struct Sent {
    pub took: Duration,
    /// Of each, from its first byte to its answer's last, the shortest first.
    pub times: Vec<Duration>,
}

/// That the user has come into a room, or has left it, in LiveKit's words. Each stay and each event
/// has its number; `at` is in LiveKit's whole seconds.
pub fn event(kind: &str, room: &str, stay: usize, number: usize, at: u64) -> Value {
    let mut event = json!({
        "event": kind, "id": format!("EV_told_{number}"), "createdAt": at.to_string(),
        "room": {
            "sid": "RM_told", "name": room, "emptyTimeout": 610, "departureTimeout": 60,
            "creationTime": at.to_string(), "creationTimeMs": format!("{at}000"),
            "enabledCodecs": [
                {"mime": "audio/opus"}, {"mime": "audio/red"}, {"mime": "video/VP8"},
                {"mime": "video/H264"}, {"mime": "video/VP9"}, {"mime": "video/AV1"},
            ],
        },
        "participant": {
            "sid": format!("{SID}{stay}"), "identity": USER, "name": USER, "state": "ACTIVE",
            "joinedAt": at.to_string(), "joinedAtMs": format!("{at}000"), "version": 3,
            "permission": {"canSubscribe": true, "canPublish": true, "canPublishData": true},
        },
    });
    if kind == "participant_left" {
        event["participant"]["state"] = json!("DISCONNECTED");
        event["participant"]["disconnectReason"] = json!("CLIENT_INITIATED");
    }
    event
}

/// The request that tells it, with LiveKit's signature.
pub fn request(livekit: &Server, event: &Value) -> Vec<u8> {
    let body = event.to_string();
    with_signature(&livekit.signature_of(&body), &body)
}

/// The request that tells this body under this signature.
pub fn with_signature(signature: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /webhooks/livekit HTTP/1.1\r\nHost: greenroom\r\n\
         Content-Type: application/webhook+json\r\nAuthorization: {signature}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends them all, in their order, and sees that each is answered 200.
pub async fn send(address: &str, requests: Vec<Vec<u8>>) -> Result<Sent> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await?);
    }
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for connection in connections {
        senders.spawn(send_while_any(connection, requests.clone(), next.clone()));
    }
    let times: Result<Vec<_>> = senders.join_all().await.into_iter().collect();
    let took = begun.elapsed();
    let mut times = times?.concat();
    times.sort_unstable();
    Ok(Sent { took, times })
}

async fn send_while_any(
    mut connection: Connection,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let begun = Instant::now();
        let status = connection.ask(request).await?;
        ensure!(status == 200, "a webhook was answered {status}");
        times.push(begun.elapsed());
    }
    Ok(times)
}
