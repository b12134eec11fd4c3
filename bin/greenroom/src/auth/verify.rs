//! Verification of callers' tokens: the choice of the key, and the reasons for a refusal.

use jsonwebtoken::decode_header;
use jsonwebtoken::errors::ErrorKind;

use super::claims::{ClaimRules, Claims, Identity};
use super::jwks::Jwks;
use super::key::Key;

const WRONG_SIGNATURE: &str = "the key did not sign the token";

/// Verifies callers' tokens.
pub struct Verifier {
    keys: Keys,
    rules: ClaimRules,
}

/// The keys that verify callers' tokens.
pub enum Keys {
    /// The secret shared with the identity provider, followed by the previous secret during a
    /// rotation.
    Secrets(Vec<Key>),
    /// The public key of the identity provider.
    Public(Box<Key>),
    /// The keys that the identity provider publishes.
    Published(Jwks),
}

impl Verifier {
    #[must_use]
    pub fn new(keys: Keys, rules: ClaimRules) -> Self {
        Self { keys, rules }
    }

    /// Returns the identity of a token's bearer.
    ///
    /// # Errors
    /// Returns the check that failed, for the log. The text contains no part of the token.
    pub async fn verify(&self, token: &str) -> Result<Identity, &'static str> {
        let claims = match &self.keys {
            Keys::Secrets(secrets) => claims_by_secret(secrets, token),
            Keys::Public(key) => key.claims(token),
            Keys::Published(jwks) => {
                let header = decode_header(token).map_err(|_| "the token is not a JWT")?;
                let (id, algorithm) = (header.kid.as_deref(), header.alg);
                let key = jwks.key(id, algorithm).await;
                let key = key.ok_or("no published key has the token's kid and alg")?;
                match key.claims(token) {
                    Err(ErrorKind::InvalidSignature) => {
                        let replaced = jwks.replaced_key(id, algorithm, &key).await;
                        replaced.ok_or(WRONG_SIGNATURE)?.claims(token)
                    }
                    claims => claims,
                }
            }
        };
        self.rules.identify(&claims.map_err(|kind| describe(&kind))?)
    }

    /// Checks that tokens can be verified, and returns how, as the end of a sentence. Fetches
    /// published keys.
    ///
    /// # Errors
    /// Returns why the published keys could not be fetched.
    pub async fn check(&self) -> Result<&'static str, String> {
        match &self.keys {
            Keys::Secrets(secrets) if secrets.len() > 1 => {
                Ok("with the current or the previous shared secret (HS256)")
            }
            Keys::Secrets(_) => Ok("with the shared secret (HS256)"),
            Keys::Public(_) => Ok("with the public key"),
            Keys::Published(jwks) => {
                jwks.fetch_at_startup().await.map(|()| "with the published keys")
            }
        }
    }
}

/// Returns the claims by the first secret that signed the token. If no secret did, returns the
/// error of the current secret.
fn claims_by_secret(secrets: &[Key], token: &str) -> Result<Claims, ErrorKind> {
    let mut outcome = Err(ErrorKind::InvalidKeyFormat);
    for (position, secret) in secrets.iter().enumerate() {
        let claims = secret.claims(token);
        // This secret signed the token. If another check failed, the previous secret is not tried.
        let is_signed = !matches!(claims, Err(ErrorKind::InvalidSignature));
        if is_signed || position == 0 {
            outcome = claims;
        }
        if is_signed {
            break;
        }
    }
    outcome
}

fn describe(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => WRONG_SIGNATURE,
        ErrorKind::InvalidAlgorithm => "the token's alg is not the algorithm of the key",
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet (nbf)",
        ErrorKind::MissingRequiredClaim(_) => "exp is missing",
        _ => "the token is not a valid JWT",
    }
}
