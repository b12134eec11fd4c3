//! Where LiveKit is, and the key to it.

use std::fmt;
use std::str::FromStr;

use greenroom_domain::Invalid;
use reqwest::Url;
use secrecy::SecretString;

/// A LiveKit deployment.
#[derive(Debug, Clone)]
pub struct LiveKitConfig {
    /// Where clients connect.
    pub url: ServerUrl,
    /// Where Greenroom calls its API; most often the same.
    pub api_url: ServerUrl,
    pub key: KeyPair,
    /// The pair before it: while keys rotate, LiveKit may still sign its webhooks with it.
    pub previous_key: Option<KeyPair>,
}

/// A key to LiveKit's API, and its secret.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// Names the secret in every token; no secret itself, and still kept out of logs.
    pub api_key: SecretString,
    /// Signs every token; at least 32 bytes.
    pub api_secret: SecretString,
}

/// A LiveKit server's address. One address serves WebSocket and HTTP, and is written either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// The `ws` or `wss` form, for clients.
    #[must_use]
    pub fn websocket(&self) -> String {
        self.with_scheme("ws", "wss")
    }

    /// The `http` or `https` form, for API calls.
    #[must_use]
    pub fn http(&self) -> String {
        self.with_scheme("http", "https")
    }

    fn with_scheme(&self, plain: &str, secure: &str) -> String {
        let scheme = if matches!(self.0.scheme(), "wss" | "https") { secure } else { plain };
        // Url::set_scheme refuses to go from ws to http, so the text is put together again.
        let rest = &self.0.as_str()[self.0.scheme().len()..];
        format!("{scheme}{}", rest.trim_end_matches('/'))
    }
}

impl FromStr for ServerUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("must be a ws://, wss://, http:// or https:// URL");
        let url = Url::parse(text).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") || !url.has_host() {
            return Err(wrong());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Invalid::new("must not hold a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Invalid::new("must not hold a query or a fragment"));
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
    fn an_address_has_two_forms() {
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
    fn what_is_no_address_of_a_server_is_refused() {
        for text in ["", "localhost:7880", "ftp://a", "wss://", "wss://u:p@a", "wss://a?b=c"] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text:?}");
        }
    }
}
