//! The addresses and the API keys of a LiveKit deployment.

use std::fmt;
use std::str::FromStr;

use greenroom_domain::secret::check_secret;
use greenroom_domain::{Invalid, InvalidValue};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

/// The configuration of a LiveKit deployment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LiveKitConfig {
    /// The address that clients connect to.
    pub url: ServerUrl,
    /// The address of LiveKit's API, usually the same as `url`.
    pub api_url: ServerUrl,
    /// Signs join tokens and API calls, and verifies webhooks.
    pub key: KeyPair,
    /// The previous pair, accepted for webhooks only. During a key rotation LiveKit may still sign
    /// webhooks with it.
    pub previous_key: Option<KeyPair>,
}

impl LiveKitConfig {
    /// Creates the configuration of a deployment that serves clients and its API at the same
    /// address, without a previous key.
    #[must_use]
    pub fn new(url: ServerUrl, key: KeyPair) -> Self {
        Self { api_url: url.clone(), url, key, previous_key: None }
    }
}

/// A key of LiveKit's API with its secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeyPair {
    /// The `iss` of every token.
    pub api_key: ApiKey,
    /// The secret that signs every token.
    pub api_secret: ApiSecret,
}

impl KeyPair {
    /// Creates the pair of a key and its secret.
    #[must_use]
    pub fn new(api_key: ApiKey, api_secret: ApiSecret) -> Self {
        Self { api_key, api_secret }
    }
}

/// A key of LiveKit's API. It is not empty. It is not secret, but is kept out of logs.
#[derive(Debug, Clone)]
pub struct ApiKey(SecretString);

impl ApiKey {
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl FromStr for ApiKey {
    type Err = InvalidValue;

    fn from_str(key: &str) -> Result<Self, InvalidValue> {
        if key.is_empty() {
            return Err(InvalidValue::new("LiveKit API key", Invalid::new("must not be empty")));
        }
        Ok(Self(key.into()))
    }
}

/// A secret of LiveKit's API: at least 32 bytes. `Debug` does not show it.
#[derive(Debug, Clone)]
pub struct ApiSecret(SecretString);

impl ApiSecret {
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl FromStr for ApiSecret {
    type Err = InvalidValue;

    fn from_str(secret: &str) -> Result<Self, InvalidValue> {
        check_secret(secret).map_err(|invalid| InvalidValue::new("LiveKit API secret", invalid))?;
        Ok(Self(secret.into()))
    }
}

/// The address of a LiveKit server. The same address serves WebSocket and HTTP, so it may be given
/// with either scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// Returns the address with scheme `ws` or `wss`, for clients.
    #[must_use]
    pub fn websocket(&self) -> String {
        self.with_scheme("ws", "wss")
    }

    /// Returns the address with scheme `http` or `https`, for API calls.
    #[must_use]
    pub fn http(&self) -> String {
        self.with_scheme("http", "https")
    }

    fn with_scheme(&self, plain: &str, secure: &str) -> String {
        let scheme = if matches!(self.0.scheme(), "wss" | "https") { secure } else { plain };
        // Url::set_scheme refuses to change ws to http, so replace the scheme in the text.
        let rest = &self.0.as_str()[self.0.scheme().len()..];
        format!("{scheme}{}", rest.trim_end_matches('/'))
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = |detail: &'static str| InvalidValue::new("LiveKit URL", Invalid::new(detail));
        let invalid_url = || invalid("must be a ws://, wss://, http:// or https:// URL");
        let url = Url::parse(text).map_err(|_| invalid_url())?;
        if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") || !url.has_host() {
            return Err(invalid_url());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("must not contain a user name or a password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("must not contain a query or a fragment"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.websocket())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_converts_between_websocket_and_http() {
        for (text, websocket, http) in [
            ("ws://localhost:7880", "ws://localhost:7880", "http://localhost:7880"),
            ("https://a.livekit.cloud/", "wss://a.livekit.cloud", "https://a.livekit.cloud"),
            ("wss://proxy/livekit/", "wss://proxy/livekit", "https://proxy/livekit"),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!((url.websocket().as_str(), url.http().as_str()), (websocket, http));
        }
    }

    #[test]
    fn empty_key_and_short_secret_are_refused_by_name() {
        let refused = "".parse::<ApiKey>().unwrap_err();
        assert_eq!(refused.to_string(), "LiveKit API key must not be empty");
        let refused = "short".parse::<ApiSecret>().unwrap_err().to_string();
        assert!(refused.starts_with("LiveKit API secret must have at least 32 bytes"), "{refused}");
        assert!(!refused.contains("short"), "{refused}");
        let secret: ApiSecret = "a secret of at least thirty-two bytes".parse().unwrap();
        assert!(!format!("{secret:?}").contains("thirty-two"), "{secret:?}");
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for text in ["", "localhost:7880", "ftp://a", "wss://", "wss://u:p@a", "wss://a?b=c"] {
            let refused = text.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(refused.starts_with("LiveKit URL must "), "{text:?}: {refused}");
        }
    }
}
