//! LiveKit's webhooks: whether it was LiveKit that sent one, and what it says.
//!
//! Best effort on LiveKit's side: they are lost, doubled and late. So nothing is decided by one;
//! what it tells becomes facts.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use greenroom_domain::RoomName;
use greenroom_domain::lifecycle::ParticipantKind;
use livekit_api::access_token::TokenVerifier;
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::rooms::ON_BEHALF;
use crate::{KeyPair, LiveKitConfig};

/// Verifies webhooks by the API key's secret, and by the pair before it while keys rotate.
pub struct WebhookVerifier {
    verifiers: Vec<TokenVerifier>,
}

/// A webhook that LiveKit sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The room it is about; none when its name is not one that a session's room has.
    pub room: Option<RoomName>,
    /// When it happened, in LiveKit's whole seconds.
    pub at: Option<DateTime<Utc>>,
    pub event: WebhookEvent,
}

/// What a webhook tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookEvent {
    /// With LiveKit's own name for the room.
    RoomStarted {
        sid: String,
    },
    RoomFinished,
    Joined(ParticipantEvent),
    Left(ParticipantEvent),
    /// Anything else, such as of tracks and egress, and what newer servers have to say.
    Other,
}

/// Somebody's stay in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantEvent {
    pub identity: String,
    /// LiveKit's own name for this stay.
    pub sid: String,
    pub kind: ParticipantKind,
    /// Why it ended, in LiveKit's word.
    pub reason: Option<String>,
}

/// A webhook that LiveKit did not send, or not like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebhook {
    /// No key of ours signed it, or its five minutes are over.
    #[error("the webhook's token does not hold")]
    Token,
    /// The token is for another body.
    #[error("the webhook's body is not the one that was signed")]
    Body,
    /// It is signed, and no event.
    #[error("the webhook's body is not an event")]
    Event,
}

impl WebhookVerifier {
    /// Verifies by the key, and by the one before it while keys rotate.
    #[must_use]
    pub fn new(config: &LiveKitConfig) -> Self {
        let verifier = |KeyPair { api_key, api_secret }: &KeyPair| {
            TokenVerifier::with_api_key(api_key.expose_secret(), api_secret.expose_secret())
        };
        let pairs = std::iter::once(&config.key).chain(&config.previous_key);
        Self { verifiers: pairs.map(verifier).collect() }
    }

    /// What a webhook says, by the value of its `Authorization` header and its raw body.
    ///
    /// # Errors
    /// When LiveKit did not send this.
    pub fn verify(&self, authorization: &str, body: &[u8]) -> Result<Webhook, InvalidWebhook> {
        let signed = self.verifiers.iter().find_map(|one| one.verify(authorization).ok());
        let signed = signed.ok_or(InvalidWebhook::Token)?;
        let digest = BASE64_STANDARD.encode(Sha256::digest(body));
        // A token without a hash is one for joining a room, which users have.
        if signed.sha256 != digest {
            return Err(InvalidWebhook::Body);
        }
        let event: Value = serde_json::from_slice(body).map_err(|_| InvalidWebhook::Event)?;
        if !event.is_object() {
            return Err(InvalidWebhook::Event);
        }
        Ok(read(&event))
    }
}

/// Reads what is known of an event, and lets the rest be: livekit-protocol's own types refuse an
/// event whole for one word they do not know.
fn read(json: &Value) -> Webhook {
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
        // Protobuf's JSON leaves out what is the default.
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

/// A text that can be kept: PostgreSQL's have no NUL.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.contains('\0')).map(str::to_owned)
}

/// Protobuf's JSON writes 64 bits as text.
fn whole_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use livekit_api::access_token::AccessToken;
    use serde_json::json;

    use super::*;
    use crate::ServerUrl;

    const KEY: &str = "key";
    const SECRET: &str = "a secret of at least thirty-two bytes";
    const BEFORE: &str = "the secret before, thirty-two bytes long";

    fn verifier() -> WebhookVerifier {
        let pair = |api_key: &str, api_secret: &str| KeyPair {
            api_key: api_key.into(),
            api_secret: api_secret.into(),
        };
        let url: ServerUrl = "ws://localhost:7880".parse().unwrap();
        WebhookVerifier::new(&LiveKitConfig {
            url: url.clone(),
            api_url: url,
            key: pair(KEY, SECRET),
            previous_key: Some(pair("old", BEFORE)),
        })
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
    fn only_livekits_own_is_taken() {
        let (body, swapped) = (br#"{"event": "room_started"}"#, br#"{"event": "room_finished"}"#);
        let verify = |token: &str, body: &[u8]| verifier().verify(token, body).map(drop);
        assert_eq!(verify(&signed(KEY, SECRET, body), body), Ok(()));
        assert_eq!(verify(&signed("old", BEFORE, body), body), Ok(()), "while keys rotate");
        assert_eq!(verify(&signed(KEY, SECRET, body), swapped), Err(InvalidWebhook::Body));
        assert_eq!(verify(&signed(KEY, BEFORE, body), body), Err(InvalidWebhook::Token));
        assert_eq!(verify(&signed("other", SECRET, body), body), Err(InvalidWebhook::Token));
        for token in ["", "x", "Bearer x", "eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(verify(token, body), Err(InvalidWebhook::Token), "{token}");
        }
        // A user's own token is signed by the same key, and is for no body at all.
        let join = AccessToken::with_api_key(KEY, SECRET).to_jwt().unwrap();
        assert_eq!(verify(&join, b""), Err(InvalidWebhook::Body));
        assert_eq!(verify(&signed(KEY, SECRET, b"[]"), b"[]"), Err(InvalidWebhook::Event));
        assert_eq!(verify(&signed(KEY, SECRET, b"\xff"), b"\xff"), Err(InvalidWebhook::Event));
    }

    #[test]
    fn a_stay_is_read_with_why_it_ended() {
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
    fn what_is_not_known_tells_nothing_and_breaks_nothing() {
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
                              "room": {"name": "not one of ours/.."},
                              "participant": {"identity": "EG_1", "sid": "PA_3", "kind": "EGRESS"}});
        let event = received(&recorder);
        assert!(
            matches!(event.event, WebhookEvent::Joined(participant) if participant.kind == ParticipantKind::Other)
        );
        assert_eq!((event.room, event.at.map(|at| at.timestamp())), (None, Some(1)));
    }
}
