//! Webhook signatures, for tests that send webhooks in place of LiveKit.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Server;
use crate::caller;

/// The time for which LiveKit's webhook tokens are valid, in seconds.
const TOKEN_LIFETIME_SECONDS: i64 = 300;

impl Server {
    /// Returns the `Authorization` header that LiveKit would send with this body.
    #[must_use]
    pub fn sign_webhook(&self, body: &str) -> String {
        let sha256 = BASE64_STANDARD.encode(Sha256::digest(body));
        let expiry = caller::seconds_from_now(TOKEN_LIFETIME_SECONDS);
        let claims = json!({ "iss": self.api_key, "exp": expiry, "sha256": sha256 });
        caller::token(&self.api_secret, &claims)
    }
}
