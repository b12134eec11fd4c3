//! LiveKit's API by its own protocol: livekit-api's clients have no field for `CreateRoom`'s `agents`,
//! and read an answer of any length.

use std::sync::Arc;
use std::time::Duration;

use greenroom_domain::RoomName;
use livekit_api::access_token::{AccessToken, VideoGrants};
use prost::Message;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, redirect};
use secrecy::ExposeSecret;
use serde::Deserialize;

use crate::{KeyPair, LiveKitConfig, LiveKitError};

/// How long one call may take. LiveKit answers within milliseconds, or not at all.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call may take that LiveKit hands on to the node of the room, when that shall tell a node
/// that is gone from a LiveKit that is slow: it asks for three seconds before it says so.
pub(super) const NODE_TIMEOUT: Duration = Duration::from_millis(3_500);

const PROTOBUF: &str = "application/protobuf";

/// How long an admin token lives; it is made for one call.
const TOKEN_TTL: Duration = Duration::from_mins(1);

/// The largest answer: hundreds of rooms are listed at once, each with the metadata that its agent
/// may have given it.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct TwirpClient {
    http: Client,
    api: String,
    key: KeyPair,
}

/// Twirp's error body.
#[derive(Deserialize)]
struct TwirpError {
    code: String,
    #[serde(default)]
    msg: String,
}

impl TwirpClient {
    pub(super) fn new(config: &LiveKitConfig) -> Result<Self, LiveKitError> {
        Ok(Self {
            http: client()?,
            api: format!("{}/twirp/livekit", config.api_url.http()),
            key: config.key.clone(),
        })
    }

    /// Calls a method of LiveKit's API: its answer, or what was wrong with it.
    pub(super) async fn call<A: Message + Default>(
        &self,
        method: &str,
        grant: Grant<'_>,
        request: &impl Message,
    ) -> Result<A, LiveKitError> {
        self.call_within(CALL_TIMEOUT, method, grant, request).await
    }

    /// The same, with a time of its own.
    pub(super) async fn call_within<A: Message + Default>(
        &self,
        timeout: Duration,
        method: &str,
        grant: Grant<'_>,
        request: &impl Message,
    ) -> Result<A, LiveKitError> {
        let answer = self
            .http
            .post(format!("{}.{method}", self.api))
            .timeout(timeout)
            .bearer_auth(self.admin_token(grant)?)
            .header(CONTENT_TYPE, PROTOBUF)
            .body(request.encode_to_vec())
            .send()
            .await
            .map_err(LiveKitError::transport)?;
        let status = answer.status();
        let is_protobuf = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROTOBUF);
        let body = read(answer).await?;
        if !status.is_success() {
            return Err(refusal(status.as_u16(), &body));
        }
        let wrong = || LiveKitError::Refused(format!("its answer to {method} makes no sense"));
        if !is_protobuf {
            return Err(wrong());
        }
        A::decode(body.as_slice()).map_err(|_| wrong())
    }

    fn admin_token(&self, grant: Grant<'_>) -> Result<String, LiveKitError> {
        let KeyPair { api_key, api_secret } = &self.key;
        AccessToken::with_api_key(api_key.expose_secret(), api_secret.expose_secret())
            .with_grants(grant.video())
            .with_ttl(TOKEN_TTL)
            .to_jwt()
            .map_err(|error| LiveKitError::Refused(error.to_string()))
    }
}

/// What one call needs to be allowed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Grant<'a> {
    Create,
    List,
    Admin(&'a RoomName),
}

impl Grant<'_> {
    fn video(self) -> VideoGrants {
        let none = VideoGrants::default();
        match self {
            Self::Create => VideoGrants { room_create: true, ..none },
            Self::List => VideoGrants { room_list: true, ..none },
            Self::Admin(room) => VideoGrants { room_admin: true, room: room.to_string(), ..none },
        }
    }
}

/// Reads an answer that is as short as LiveKit's: what goes on is none, and is not kept.
async fn read(mut answer: Response) -> Result<Vec<u8>, LiveKitError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(LiveKitError::broken_off)? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(LiveKitError::Refused("its answer does not end".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refusal(status: u16, body: &[u8]) -> LiveKitError {
    let message = match serde_json::from_slice(body) {
        Ok(TwirpError { code, .. }) if code == "not_found" => return LiveKitError::NotFound,
        Ok(TwirpError { code, msg }) if code == "unavailable" => return LiveKitError::NoNode(msg),
        Ok(TwirpError { code, msg }) => format!("{code}: {msg}"),
        Err(_) => format!("HTTP status {status}"),
    };
    LiveKitError::status(status, message)
}

/// An HTTP client with Mozilla's roots, on the crypto provider livekit-api brings.
fn client() -> Result<Client, LiveKitError> {
    let unusable = |error: &dyn std::error::Error| LiveKitError::Refused(error.to_string());
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|error| unusable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_can_be_done() {
        let kind = |status, body: &[u8]| match refusal(status, body) {
            LiveKitError::Unavailable(_) => "unavailable",
            LiveKitError::NoNode(_) => "no node",
            LiveKitError::Timeout => "timeout",
            LiveKitError::NotFound => "not found",
            LiveKitError::Refused(_) => "refused",
        };
        assert_eq!(kind(401, br#"{"code": "unauthenticated", "msg": "bad key"}"#), "refused");
        assert_eq!(kind(404, br#"{"code": "not_found", "msg": "no such room"}"#), "not found");
        assert_eq!(kind(404, b"<html>no such page</html>"), "refused");
        assert_eq!(kind(500, b"<html>oops</html>"), "refused");
        assert_eq!(kind(503, br#"{"code": "unavailable"}"#), "no node");
        assert_eq!(kind(503, b"<html>no upstream</html>"), "unavailable");
        assert_eq!(kind(429, br#"{"code": "resource_exhausted"}"#), "unavailable");
        assert_eq!(kind(502, b""), "unavailable");
        assert_eq!(kind(408, br#"{"code": "deadline_exceeded"}"#), "timeout");
    }
}
