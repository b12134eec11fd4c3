//! Webhooks as a server signs them, for those who send them in its place.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Server;
use crate::caller;

/// How long LiveKit lets a webhook be believed.
const LIFE: i64 = 300;

impl Server {
    /// What it would send in `Authorization` with this body.
    #[must_use]
    pub fn signature_of(&self, body: &str) -> String {
        let sha256 = BASE64_STANDARD.encode(Sha256::digest(body));
        let claims =
            json!({ "iss": self.api_key, "exp": caller::in_seconds(LIFE), "sha256": sha256 });
        caller::token(&self.api_secret, &claims)
    }
}
