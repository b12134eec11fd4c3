//! A client for LiveKit's Twirp API. livekit-api's clients have no field for `CreateRoom`'s
//! `agents`, and read responses of any length.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use greenroom_domain::RoomName;
use livekit_api::access_token::VideoGrants;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url, redirect};
use serde::Deserialize;

use crate::{LiveKitConfig, LiveKitError, TokenSigner};

/// Timeout of a call. LiveKit responds within milliseconds or not at all.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout of a call that LiveKit forwards to the room's node. LiveKit reports a missing node after
/// three seconds, so a shorter timeout could not distinguish a missing node from a slow LiveKit.
pub(super) const NODE_TIMEOUT: Duration = Duration::from_millis(3_500);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");

/// Lifetime of an admin token, which is used for one call.
const TOKEN_TTL: TimeDelta = TimeDelta::minutes(1);

/// Maximum size of a response. A list contains hundreds of rooms with the metadata that their
/// agents wrote.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct TwirpClient {
    http: Client,
    /// The address of the server. Parsed once, because parsing takes longer than signing a token.
    server: Url,
    /// The path of each method, without the names of its service and of the method.
    path: String,
    signer: TokenSigner,
}

/// The body of a Twirp error.
#[derive(Deserialize)]
struct TwirpError {
    code: String,
    #[serde(default)]
    msg: String,
}

impl TwirpClient {
    pub(super) fn new(config: &LiveKitConfig) -> Result<Self, LiveKitError> {
        let server = Url::parse(&config.api_url.http()).map_err(|error| to_refused(&error))?;
        let path = format!("{}/twirp/livekit", server.path().trim_end_matches('/'));
        Ok(Self { http: client()?, server, path, signer: TokenSigner::new(&config.key) })
    }

    /// Calls a method of LiveKit's API and returns its response.
    pub(super) async fn call<R: Message + Default>(
        &self,
        method: &str,
        grant: Grant<'_>,
        request: &impl Message,
    ) -> Result<R, LiveKitError> {
        self.call_within(CALL_TIMEOUT, method, grant, request).await
    }

    /// Calls a method of LiveKit's API with the given timeout.
    pub(super) async fn call_within<R: Message + Default>(
        &self,
        timeout: Duration,
        method: &str,
        grant: Grant<'_>,
        request: &impl Message,
    ) -> Result<R, LiveKitError> {
        let mut address = self.server.clone();
        address.set_path(&format!("{}.{method}", self.path));
        let response = self
            .http
            .post(address)
            .timeout(timeout)
            .bearer_auth(self.signer.sign_admin(grant.video(), TOKEN_TTL))
            .header(CONTENT_TYPE, PROTOBUF)
            .body(request.encode_to_vec())
            .send()
            .await
            .map_err(LiveKitError::transport)?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE);
        let is_protobuf = content_type.is_some_and(|value| value == PROTOBUF);
        let body = read(response).await?;
        if !status.is_success() {
            return Err(twirp_error(status.as_u16(), &body));
        }
        let invalid = || {
            LiveKitError::Refused(format!(
                "the response to {method} is not a valid protobuf message"
            ))
        };
        if !is_protobuf {
            return Err(invalid());
        }
        R::decode(body.as_slice()).map_err(|_| invalid())
    }
}

/// The permission that a call needs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Grant<'a> {
    Create,
    List,
    Admin(&'a RoomName),
}

impl Grant<'_> {
    fn video(self) -> VideoGrants {
        let base = VideoGrants::default();
        match self {
            Self::Create => VideoGrants { room_create: true, ..base },
            Self::List => VideoGrants { room_list: true, ..base },
            Self::Admin(room) => VideoGrants { room_admin: true, room: room.to_string(), ..base },
        }
    }
}

/// Reads the body of a response of at most [`MAX_RESPONSE_BYTES`].
async fn read(mut response: Response) -> Result<Vec<u8>, LiveKitError> {
    if response.content_length().is_some_and(|length| length > MAX_RESPONSE_BYTES as u64) {
        return Err(LiveKitError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(LiveKitError::incomplete_response)? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err(LiveKitError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn twirp_error(status: u16, body: &[u8]) -> LiveKitError {
    let message = match serde_json::from_slice(body) {
        Ok(TwirpError { code, .. }) if code == "not_found" => return LiveKitError::NotFound,
        Ok(TwirpError { code, msg }) if code == "unavailable" => return LiveKitError::NoNode(msg),
        Ok(TwirpError { code, msg }) => format!("{code}: {msg}"),
        Err(_) => format!("HTTP status {status}"),
    };
    LiveKitError::status(status, message)
}

fn to_refused(error: &dyn std::error::Error) -> LiveKitError {
    LiveKitError::Refused(error.to_string())
}

/// Creates an HTTP client that trusts Mozilla's root certificates. It uses the crypto provider that
/// livekit-api depends on.
fn client() -> Result<Client, LiveKitError> {
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| to_refused(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|error| to_refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_classified_by_what_caller_can_do() {
        let kind = |status, body: &[u8]| match twirp_error(status, body) {
            LiveKitError::Unavailable(_) => "unavailable",
            LiveKitError::NoNode(_) => "no node",
            LiveKitError::Timeout => "timeout",
            LiveKitError::NotFound => "not found",
            LiveKitError::Refused(_) => "refused",
            LiveKitError::TooLarge => "too large",
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
