//! Verification and parsing of LiveKit's webhooks.
//!
//! LiveKit may lose, repeat or delay webhooks. They therefore only add facts, and no decision
//! depends on a single webhook.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use greenroom_domain::RoomName;
use greenroom_domain::lifecycle::ParticipantKind;
use livekit_api::access_token::TokenVerifier;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::rooms::ON_BEHALF;
use crate::{KeyPair, LiveKitConfig};

/// Verifies webhooks with the secret of the API key, and with the previous key during a key
/// rotation.
pub struct WebhookVerifier {
    verifiers: Vec<TokenVerifier>,
}

/// A verified webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The room of the event. `None` means that the event has no room, or that its name cannot be
    /// the name of a session's room.
    pub room: Option<RoomName>,
    /// LiveKit's time of the event, in whole seconds. `None` means that it is absent or invalid.
    pub at: Option<DateTime<Utc>>,
    /// The event, with the fields that Greenroom uses.
    pub event: WebhookEvent,
}

/// The event that a webhook reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookEvent {
    /// The room was opened.
    RoomStarted {
        /// LiveKit's sid of the room.
        sid: String,
    },
    /// The room was closed.
    RoomFinished,
    /// A participant joined the room.
    Joined(ParticipantEvent),
    /// A participant left the room.
    Left(ParticipantEvent),
    /// Any other event, such as those for tracks and egress, and events of newer servers.
    Other,
}

/// The join or the departure of a participant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantEvent {
    /// LiveKit's identity of the participant, unique in the room.
    pub identity: String,
    /// LiveKit's sid of the participant. A participant who rejoins gets a new sid.
    pub sid: String,
    /// The kind, derived from LiveKit's kind and the participant's attributes.
    pub kind: ParticipantKind,
    /// LiveKit's disconnect reason, such as `CLIENT_INITIATED`. `None` means a join, or a departure
    /// without a reason.
    pub reason: Option<String>,
}

/// The reason why a webhook was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhook {
    /// The token is malformed, expired (after five minutes), or not signed with a configured key.
    #[error(
        "the webhook's token is malformed, expired, or not signed with a configured LiveKit key"
    )]
    Token,
    /// The token's hash is that of another body, or is missing.
    #[error("the webhook's body does not match the hash in its token")]
    Body,
    /// The body is signed, but is not a JSON object.
    #[error("the webhook's body is not a JSON object")]
    Event,
}

impl WebhookVerifier {
    /// Creates a verifier for the current key and the previous key, if there is one.
    #[must_use]
    pub fn new(config: &LiveKitConfig) -> Self {
        let verifier = |KeyPair { api_key, api_secret }: &KeyPair| {
            TokenVerifier::with_api_key(api_key.expose(), api_secret.expose())
        };
        let pairs = std::iter::once(&config.key).chain(&config.previous_key);
        Self { verifiers: pairs.map(verifier).collect() }
    }

    /// Verifies the value of the `Authorization` header against the raw body, and parses the event.
    ///
    /// # Errors
    /// Returns [`InvalidWebhook`] if LiveKit did not sign this body, or if it is not a JSON object.
    pub fn verify(&self, authorization: &str, body: &[u8]) -> Result<Webhook, InvalidWebhook> {
        let signed = self.verifiers.iter().find_map(|verifier| verifier.verify(authorization).ok());
        let signed = signed.ok_or(InvalidWebhook::Token)?;
        let digest = BASE64_STANDARD.encode(Sha256::digest(body));
        // A token without a hash is a join token, which users have.
        if signed.sha256 != digest {
            return Err(InvalidWebhook::Body);
        }
        let event: Value = serde_json::from_slice(body).map_err(|_| InvalidWebhook::Event)?;
        if !event.is_object() {
            return Err(InvalidWebhook::Event);
        }
        Ok(parse(&event))
    }
}

/// Parses the known fields of an event and ignores all others. livekit-protocol's types would
/// refuse the whole event because of one unknown enum value.
fn parse(json: &Value) -> Webhook {
    let event = match json["event"].as_str().unwrap_or_default() {
        "room_started" => text(&json["room"]["sid"])
            .map_or(WebhookEvent::Other, |sid| WebhookEvent::RoomStarted { sid }),
        "room_finished" => WebhookEvent::RoomFinished,
        "participant_joined" => {
            participant_event(json).map_or(WebhookEvent::Other, WebhookEvent::Joined)
        }
        "participant_left" => {
            participant_event(json).map_or(WebhookEvent::Other, WebhookEvent::Left)
        }
        _ => WebhookEvent::Other,
    };
    let room = json["room"]["name"].as_str().map(str::to_owned);
    Webhook {
        room: room.and_then(|name| RoomName::try_from(name).ok()),
        at: whole_number(&json["createdAt"])
            .filter(|at| !at.is_negative())
            .and_then(|at| DateTime::from_timestamp(at, 0)),
        event,
    }
}

fn participant_event(json: &Value) -> Option<ParticipantEvent> {
    let participant = &json["participant"];
    let text = |name: &str| text(&participant[name]);
    let kind = match participant["kind"].as_str() {
        // Protobuf's JSON omits default values.
        None | Some("STANDARD") => ParticipantKind::User,
        Some("AGENT") if participant["attributes"].get(ON_BEHALF).is_none() => {
            ParticipantKind::Agent
        }
        Some(_) => ParticipantKind::Other,
    };
    Some(ParticipantEvent {
        identity: text("identity")?,
        sid: text("sid")?,
        kind,
        reason: text("disconnectReason"),
    })
}

/// Returns a text without NUL, which PostgreSQL cannot store.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.contains('\0')).map(str::to_owned)
}

/// Returns an integer that may be given as text: protobuf's JSON writes 64-bit integers as text.
fn whole_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use livekit_api::access_token::AccessToken;
    use serde_json::json;

    use super::*;

    const KEY: &str = "key";
    const SECRET: &str = "a secret of at least thirty-two bytes";
    const PREVIOUS: &str = "the previous secret, also thirty-two bytes";

    fn verifier() -> WebhookVerifier {
        let pair =
            |key: &str, secret: &str| KeyPair::new(key.parse().unwrap(), secret.parse().unwrap());
        let url = "ws://localhost:7880".parse().unwrap();
        let mut config = LiveKitConfig::new(url, pair(KEY, SECRET));
        config.previous_key = Some(pair("old", PREVIOUS));
        WebhookVerifier::new(&config)
    }

    fn signed(key: &str, secret: &str, body: &[u8]) -> String {
        let digest = BASE64_STANDARD.encode(Sha256::digest(body));
        AccessToken::with_api_key(key, secret).with_sha256(&digest).to_jwt().unwrap()
    }

    fn received(event: &Value) -> Webhook {
        let body = event.to_string();
        verifier().verify(&signed(KEY, SECRET, body.as_bytes()), body.as_bytes()).unwrap()
    }

    #[test]
    fn only_webhooks_signed_by_livekit_are_accepted() {
        let (body, swapped) = (br#"{"event": "room_started"}"#, br#"{"event": "room_finished"}"#);
        let verify = |token: &str, body: &[u8]| verifier().verify(token, body).map(drop);
        assert_eq!(verify(&signed(KEY, SECRET, body), body), Ok(()));
        assert_eq!(verify(&signed("old", PREVIOUS, body), body), Ok(()), "the previous key");
        assert_eq!(verify(&signed(KEY, SECRET, body), swapped), Err(InvalidWebhook::Body));
        assert_eq!(verify(&signed(KEY, PREVIOUS, body), body), Err(InvalidWebhook::Token));
        assert_eq!(verify(&signed("other", SECRET, body), body), Err(InvalidWebhook::Token));
        for token in ["", "x", "Bearer x", "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(verify(token, body), Err(InvalidWebhook::Token), "{token}");
        }
        // A join token is signed with the same key, but contains no hash.
        let join = AccessToken::with_api_key(KEY, SECRET).to_jwt().unwrap();
        assert_eq!(verify(&join, b""), Err(InvalidWebhook::Body));
        assert_eq!(verify(&signed(KEY, SECRET, b"[]"), b"[]"), Err(InvalidWebhook::Event));
        assert_eq!(verify(&signed(KEY, SECRET, b"\xff"), b"\xff"), Err(InvalidWebhook::Event));
    }

    #[test]
    fn departure_is_parsed_with_its_reason() {
        let left = received(&json!({
            "event": "participant_left", "id": "EV_1", "createdAt": "1800000000",
            "room": {"name": "session_20261122_143022_a7b3c9", "sid": "RM_1"},
            "participant": {"identity": "agent-AJ_1", "sid": "PA_1", "kind": "AGENT",
                            "disconnectReason": "CLIENT_INITIATED", "fromANewerServer": {}},
        }));
        assert_eq!(left.room.unwrap().as_str(), "session_20261122_143022_a7b3c9");
        assert_eq!(left.at.unwrap().timestamp(), 1_800_000_000);
        let participant = ParticipantEvent {
            identity: "agent-AJ_1".to_owned(),
            sid: "PA_1".to_owned(),
            kind: ParticipantKind::Agent,
            reason: Some("CLIENT_INITIATED".to_owned()),
        };
        assert_eq!(left.event, WebhookEvent::Left(participant));
        let user = json!({"event": "participant_joined", "participant": {"identity": "ann", "sid": "PA_2"}});
        let WebhookEvent::Joined(participant) = received(&user).event else { panic!("{user}") };
        assert_eq!((participant.kind, participant.reason), (ParticipantKind::User, None));
    }

    #[test]
    fn unknown_events_and_values_are_tolerated() {
        for event in [
            json!({}),
            json!({"event": 7}),
            json!({"event": "track_published", "track": {"type": "A_NEW_ONE"}}),
            json!({"event": "participant_left"}),
            json!({"event": "participant_left", "participant": {"identity": 7, "sid": []}}),
        ] {
            assert_eq!(received(&event).event, WebhookEvent::Other, "{event}");
        }
        let recorder = json!({"event": "participant_joined", "createdAt": 1,
                              "room": {"name": "not a session room/.."},
                              "participant": {"identity": "EG_1", "sid": "PA_3", "kind": "EGRESS"}});
        let event = received(&recorder);
        assert!(
            matches!(event.event, WebhookEvent::Joined(participant) if participant.kind == ParticipantKind::Other)
        );
        assert_eq!((event.room, event.at.map(|at| at.timestamp())), (None, Some(1)));
    }
}
