//! The tokens with which users join their rooms, and those of calls to LiveKit's API.
//!
//! The claims are livekit-api's type. They are encoded here, because livekit-api's `AccessToken`
//! sets `nbf` to the current time without a setter, and a client with a slow clock refuses a future
//! `nbf`.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Duration, Utc};
use greenroom_domain::{
    EnabledPanels, ModalityProfile, ParticipantAttributes, ParticipantIdentity, PublishGrant,
    RoomName, SessionId, SessionTemplateId, UserId,
};
use hmac::{Hmac, Mac};
use livekit_api::access_token::{Claims, VideoGrants};
use serde::Serialize;
use sha2::Sha256;

use crate::{ApiKey, KeyPair, RoomSettings};

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Maximum time by which the clock of a client, or of LiveKit, may be slow.
const CLOCK_SKEW: Duration = Duration::seconds(10);

/// The content of a join token.
#[derive(Debug, Clone)]
pub struct JoinToken<'a> {
    /// The room that the token admits to.
    pub room: &'a RoomName,
    /// The identity with which the user joins. Becomes the `sub` claim.
    pub identity: &'a ParticipantIdentity,
    /// The display name of the participant. `None` means an empty name.
    pub name: Option<&'a str>,
    /// The participant's attributes. `None` means no attributes.
    pub attributes: Option<&'a ParticipantAttributes>,
    /// Time of issue. The token is valid from 10 seconds earlier, because a client's clock may be
    /// slow.
    pub issued_at: DateTime<Utc>,
    /// Time until which the user can connect. A connected user stays connected after it.
    pub expires_at: DateTime<Utc>,
    /// The metadata that LiveKit gives to all participants, as JSON.
    pub metadata: TokenMetadata<'a>,
    /// The settings with which LiveKit opens the room, if this join opens it.
    pub room_settings: &'a RoomSettings,
}

/// The participant's metadata: the session's data for the client and the agent.
#[derive(Debug, Clone, Serialize)]
pub struct TokenMetadata<'a> {
    /// The session that the user joins.
    pub session_id: SessionId,
    /// The template from which the session was started.
    pub session_template_id: SessionTemplateId,
    /// The id of the user. `None` means that the user is a guest.
    pub user_id: Option<&'a UserId>,
    /// The tracks that the user may publish. `None` means all. Also determines the
    /// publish permissions of the token.
    pub modality_profile: Option<ModalityProfile>,
    /// The panels that the client shows. `None` leaves the choice to the client.
    pub enabled_panels: Option<&'a EnabledPanels>,
}

/// Signs tokens. The HMAC key is prepared once.
#[derive(Clone)]
pub struct TokenSigner {
    api_key: ApiKey,
    mac: Hmac<Sha256>,
}

impl TokenSigner {
    /// Creates a signer for tokens of this API key.
    #[must_use]
    pub fn new(key: &KeyPair) -> Self {
        // HMAC accepts a key of any length, so this cannot fail.
        let mac = Hmac::new_from_slice(key.api_secret.expose().as_bytes())
            .unwrap_or_else(|_| Hmac::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
        Self { api_key: key.api_key.clone(), mac }
    }

    /// Returns the token as a JWT, signed with HS256 and the API secret.
    #[must_use]
    pub fn sign(&self, token: &JoinToken<'_>) -> String {
        self.encode(&self.claims(token))
    }

    /// Returns a token for calls to LiveKit's API, valid for `lifetime` from now.
    pub(crate) fn sign_admin(&self, video: VideoGrants, lifetime: Duration) -> String {
        let now = now();
        self.encode(&Claims {
            iss: self.api_key.expose().to_owned(),
            nbf: unix_seconds(now - CLOCK_SKEW),
            exp: unix_seconds(now + lifetime),
            video,
            ..Claims::default()
        })
    }

    fn encode(&self, claims: &Claims) -> String {
        // The claims contain only strings, numbers and maps of strings, so this cannot fail.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let mut jwt = String::with_capacity(HEADER.len() + claims.len() * 4 / 3 + 50);
        jwt.push_str(HEADER);
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut jwt);
        let signature = self.mac.clone().chain_update(jwt.as_bytes()).finalize().into_bytes();
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        jwt
    }

    fn claims(&self, token: &JoinToken<'_>) -> Claims {
        Claims {
            iss: self.api_key.expose().to_owned(),
            sub: token.identity.as_str().to_owned(),
            name: token.name.unwrap_or_default().to_owned(),
            nbf: unix_seconds(token.issued_at - CLOCK_SKEW),
            exp: unix_seconds(token.expires_at),
            video: grants(token.room, token.metadata.modality_profile),
            metadata: serde_json::to_string(&token.metadata).unwrap_or_default(),
            attributes: attributes(token.attributes),
            room_config: Some(token.room_settings.to_configuration()),
            ..Claims::default()
        }
    }
}

fn grants(room: &RoomName, profile: Option<ModalityProfile>) -> VideoGrants {
    let publish = PublishGrant::of(profile);
    VideoGrants {
        room: room.as_str().to_owned(),
        room_join: true,
        can_subscribe: Some(true),
        can_publish_data: Some(true),
        can_update_own_metadata: Some(false),
        can_publish: Some(publish != PublishGrant::Nothing),
        can_publish_sources: match publish {
            PublishGrant::Sources(sources) => {
                sources.iter().map(|source| source.as_str().to_owned()).collect()
            }
            PublishGrant::Everything | PublishGrant::Nothing => Vec::new(),
        },
        ..VideoGrants::default()
    }
}

fn attributes(attributes: Option<&ParticipantAttributes>) -> HashMap<String, String> {
    let entries = attributes.into_iter().flat_map(ParticipantAttributes::as_map);
    entries.map(|(key, text)| (key.clone(), text.clone())).collect()
}

#[expect(clippy::disallowed_methods, reason = "LiveKit compares these tokens with its own clock")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn unix_seconds(at: DateTime<Utc>) -> usize {
    usize::try_from(at.timestamp()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use greenroom_domain::template::ReconnectWindow;
    use greenroom_domain::{AgentName, OrganizationId};
    use livekit_api::access_token::TokenVerifier;
    use serde_json::{Value, json};

    use super::*;
    use crate::{AgentDispatch, JobMetadata};

    const SECRET: &str = "a secret of at least thirty-two bytes";

    /// Signs a token with this profile and verifies it with livekit-api's `TokenVerifier`.
    #[expect(clippy::disallowed_methods, reason = "livekit-api's verifier reads the system clock")]
    fn verified(profile: Option<&str>, dispatch: AgentDispatch) -> (Claims, DateTime<Utc>) {
        let now = Utc::now();
        let session = SessionId::new(now, [7; 10]);
        let room = RoomName::new(now, 1);
        let user = UserId::try_from("ann".to_owned()).unwrap();
        let window = ReconnectWindow::try_from(60).unwrap();
        let settings = RoomSettings::new(600, window, dispatch);
        let attributes = BTreeMap::from([("plan".to_owned(), "gold".to_owned())]);
        let attributes = ParticipantAttributes::try_from(attributes).unwrap();
        let token = JoinToken {
            room: &room,
            identity: &ParticipantIdentity::from(&user),
            name: Some("Ann"),
            attributes: Some(&attributes),
            issued_at: now,
            expires_at: now + Duration::seconds(3600),
            metadata: TokenMetadata {
                session_id: session,
                session_template_id: SessionTemplateId(session.0),
                user_id: Some(&user),
                modality_profile: profile.map(|profile| profile.parse().unwrap()),
                enabled_panels: None,
            },
            room_settings: &settings,
        };
        let signer =
            TokenSigner::new(&KeyPair::new("key".parse().unwrap(), SECRET.parse().unwrap()));
        let verifier = TokenVerifier::with_api_key("key", SECRET);
        (verifier.verify(&signer.sign(&token)).unwrap(), now)
    }

    #[test]
    fn token_passes_livekit_verifier_with_expected_claims() {
        let (claims, now) = verified(None, AgentDispatch::unserved());
        assert_eq!(
            (claims.iss.as_str(), claims.sub.as_str(), claims.name.as_str()),
            ("key", "ann", "Ann")
        );
        assert_eq!(claims.attributes, HashMap::from([("plan".to_owned(), "gold".to_owned())]));
        assert_eq!(claims.exp, unix_seconds(now) + 3600);
        assert_eq!(claims.nbf, unix_seconds(now) - 10);
        assert!(claims.video.room_join && !claims.video.room_admin && !claims.video.room_create);
        assert_eq!(claims.video.can_update_own_metadata, Some(false));
    }

    #[test]
    fn grants_follow_the_profile() {
        let video = |profile| verified(profile, AgentDispatch::unserved()).0.video;
        let unrestricted = video(None);
        assert_eq!(unrestricted.can_publish, Some(true));
        assert!(unrestricted.can_publish_sources.is_empty());
        let audio = video(Some("audio+text"));
        assert_eq!(
            (audio.can_publish, audio.can_publish_sources),
            (Some(true), vec!["microphone".to_owned()])
        );
        let screen = video(Some("screen"));
        assert_eq!(screen.can_publish_sources, ["screen_share", "screen_share_audio"]);
        let text = video(Some("text"));
        assert_eq!((text.can_publish, text.can_publish_data), (Some(false), Some(true)));
    }

    #[test]
    fn metadata_has_exactly_its_five_keys() {
        let (claims, _) = verified(Some("text+audio"), AgentDispatch::unserved());
        let metadata: Value = serde_json::from_str(&claims.metadata).unwrap();
        let mut keys: Vec<_> = metadata.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            ["enabled_panels", "modality_profile", "session_id", "session_template_id", "user_id"]
        );
        assert_eq!(metadata["modality_profile"], "audio+text");
    }

    #[test]
    fn room_reopened_by_token_dispatches_unserved_agent() {
        let (claims, _) = verified(None, AgentDispatch::unserved());
        let config = claims.room_config.unwrap();
        assert_eq!(config.agents.len(), 1);
        assert_eq!(config.agents[0].agent_name, AgentName::UNSERVED);
        assert_eq!((config.empty_timeout, config.departure_timeout), (610, 60));
    }

    #[test]
    fn dispatch_in_token_contains_no_private_metadata() {
        let agent = AgentName::try_from("greeter".to_owned()).unwrap();
        let session = SessionId(uuid_of(1));
        let metadata = JobMetadata {
            session_id: session,
            organization_id: OrganizationId(uuid_of(2)),
            session_template_id: SessionTemplateId(uuid_of(3)),
            user_id: None,
            private: None,
        };
        let (claims, _) = verified(None, metadata.dispatch(&agent));
        let dispatch = &claims.room_config.unwrap().agents[0];
        let metadata: Value = serde_json::from_str(&dispatch.metadata).unwrap();
        assert_eq!(
            metadata,
            json!({"session_id": uuid_of(1).to_string(), "organization_id": uuid_of(2).to_string(),
                   "session_template_id": uuid_of(3).to_string(), "user_id": null})
        );
    }

    fn uuid_of(n: u8) -> uuid::Uuid {
        uuid::Uuid::from_bytes([n; 16])
    }
}
