//! A load of webhooks: signed in advance, then sent as fast as the service accepts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use greenroom_testkit::livekit::Server;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::raw_http::Connection;
use super::starts::USER;

/// Number of kept connections, each with one request at a time.
pub const CONNECTIONS: usize = 64;

/// Prefix of the participants' sids, by which the events of this load are found in the timelines.
pub const SID_PREFIX: &str = "PA_bench_";

/// The result of a load.
pub struct Sent {
    pub took: Duration,
    /// Response times in ascending order, from the first byte sent to the last byte received.
    pub times: Vec<Duration>,
}

/// Returns an event as LiveKit sends it. `kind` is `participant_joined` or `participant_left`.
/// `join` counts the joins of users, each with its own participant SID; `number` counts the events;
/// `at` is a Unix time in seconds.
pub fn event(kind: &str, room: &str, join: usize, number: usize, at: u64) -> Value {
    let mut event = json!({
        "event": kind, "id": format!("EV_bench_{number}"), "createdAt": at.to_string(),
        "room": {
            "sid": "RM_bench", "name": room, "emptyTimeout": 610, "departureTimeout": 60,
            "creationTime": at.to_string(), "creationTimeMs": format!("{at}000"),
            "enabledCodecs": [
                {"mime": "audio/opus"}, {"mime": "audio/red"}, {"mime": "video/VP8"},
                {"mime": "video/H264"}, {"mime": "video/VP9"}, {"mime": "video/AV1"},
            ],
        },
        "participant": {
            "sid": format!("{SID_PREFIX}{join}"), "identity": USER, "name": USER, "state": "ACTIVE",
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

/// Returns an event of a room without a participant, such as `room_finished`.
pub fn room_event(kind: &str, room: &str, number: usize, at: u64) -> Value {
    let mut event = event(kind, room, 0, number, at);
    if let Some(fields) = event.as_object_mut() {
        fields.remove("participant");
    }
    event
}

/// Returns an event of the agent of a room.
pub fn agent_event(kind: &str, room: &str, agent: &str, number: usize, at: u64) -> Value {
    let mut event = event(kind, room, number, number, at);
    event["participant"]["identity"] = json!(agent);
    event["participant"]["kind"] = json!("AGENT");
    event["participant"]["attributes"] = json!({ "lk.agent.state": "listening" });
    event
}

/// Returns the request for an event, signed as by LiveKit.
pub fn request(livekit: &Server, event: &Value) -> Vec<u8> {
    let body = event.to_string();
    with_signature(&livekit.sign_webhook(&body), &body)
}

/// Returns a request with this signature and body.
pub fn with_signature(signature: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /webhooks/livekit HTTP/1.1\r\nHost: greenroom\r\n\
         Content-Type: application/webhook+json\r\nAuthorization: {signature}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends all requests in their order and checks that each returns 200.
pub async fn send(address: &str, requests: Vec<Vec<u8>>) -> Result<Sent> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address).await?);
    }
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for connection in connections {
        senders.spawn(send_remaining(connection, requests.clone(), next.clone()));
    }
    let times: Result<Vec<_>> = senders.join_all().await.into_iter().collect();
    let took = begun.elapsed();
    let mut times = times?.concat();
    times.sort_unstable();
    Ok(Sent { took, times })
}

async fn send_remaining(
    mut connection: Connection,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let begun = Instant::now();
        let status = connection.send(request).await?;
        ensure!(status == 200, "a webhook returned {status}");
        times.push(begun.elapsed());
    }
    Ok(times)
}
