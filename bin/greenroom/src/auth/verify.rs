//! Verifying a token: the key it must be signed with, and the times it is good for.

use jsonwebtoken::decode_header;
use jsonwebtoken::errors::ErrorKind;

use super::claims::{ClaimRules, Claims, Identity};
use super::jwks::Jwks;
use super::key::Key;

/// Verifies callers' tokens.
pub struct Verifier {
    keys: Keys,
    rules: ClaimRules,
}

/// What callers' tokens are signed with.
pub enum Keys {
    /// A secret we share with the identity system, and the one before it while secrets rotate.
    Secrets(Vec<Key>),
    /// The one key of the identity system.
    Public(Box<Key>),
    /// The keys it publishes.
    Published(Jwks),
}

impl Verifier {
    #[must_use]
    pub fn new(keys: Keys, rules: ClaimRules) -> Self {
        Self { keys, rules }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// With the check that failed, for the log; it repeats nothing of the token.
    pub async fn verify(&self, token: &str) -> Result<Identity, &'static str> {
        let claims = match &self.keys {
            Keys::Secrets(secrets) => first(secrets, token),
            Keys::Public(key) => key.claims(token),
            Keys::Published(jwks) => {
                let header = decode_header(token).map_err(|_| "it is not a JWT")?;
                let (id, algorithm) = (header.kid.as_deref(), header.alg);
                let key = jwks.key(id, algorithm).await.ok_or("no published key is its")?;
                match key.claims(token) {
                    Err(ErrorKind::InvalidSignature) => {
                        let changed = jwks.changed(id, algorithm, &key).await;
                        changed.ok_or("the signature is not of the key")?.claims(token)
                    }
                    claims => claims,
                }
            }
        };
        self.rules.identify(&claims.map_err(|kind| told(&kind))?)
    }

    /// Whether callers can be verified at all; else what is wrong.
    ///
    /// # Errors
    /// When the published keys cannot be fetched.
    pub async fn check(&self) -> Result<&'static str, String> {
        match &self.keys {
            Keys::Secrets(secrets) if secrets.len() > 1 => {
                Ok("by the two shared secrets (HS256), while they rotate")
            }
            Keys::Secrets(_) => Ok("by the shared secret (HS256)"),
            Keys::Public(_) => Ok("by the public key"),
            Keys::Published(jwks) => jwks.fetch_first().await.map(|()| "by the published keys"),
        }
    }
}

/// The claims by the first secret that signed the token, else why the current one did not.
fn first(secrets: &[Key], token: &str) -> Result<Claims, ErrorKind> {
    let mut outcome = Err(ErrorKind::InvalidKeyFormat);
    for (position, secret) in secrets.iter().enumerate() {
        let claims = secret.claims(token);
        // A token of the current secret that has expired is not tried by the one before.
        let is_its_own = !matches!(claims, Err(ErrorKind::InvalidSignature));
        if is_its_own || position == 0 {
            outcome = claims;
        }
        if is_its_own {
            break;
        }
    }
    outcome
}

fn told(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "the signature is not of the key",
        ErrorKind::InvalidAlgorithm => "the algorithm is not the key's",
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "its time has not come",
        ErrorKind::MissingRequiredClaim(_) => "exp is missing",
        _ => "it is not a JWT that holds",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "the callers' secret of thirty-two bytes";

    fn token(algorithm: Algorithm, key: &EncodingKey) -> String {
        let claims = json!({
            "org_id": "0193b8a0-0000-7000-8000-000000000001", "user_id": "ann", "exp": 4_000_000_000_u64,
            "scope": "sessions:start sessions:read", "iss": "https://id.example", "sub": "ann",
        });
        encode(&Header::new(algorithm), &claims, key).unwrap()
    }

    /// The median time of one verification, in microseconds.
    async fn microseconds(verifier: &Verifier, token: &str) -> u128 {
        let mut times = Vec::new();
        for _ in 0..2_000 {
            let before = Instant::now();
            verifier.verify(token).await.unwrap();
            times.push(before.elapsed().as_nanos());
        }
        times.sort_unstable();
        times[times.len() / 2] / 1_000
    }

    /// As it is measured for the release: `cargo test --release -p greenroom verifying -- --nocapture`.
    /// Without optimisation all but the cryptography takes many times as long.
    #[tokio::test]
    async fn verifying_a_caller_takes_microseconds() {
        let slower = if cfg!(debug_assertions) { 20 } else { 1 };
        let secret = Keys::Secrets(vec![Key::of_secret(&SECRET.into())]);
        let by_secret = Verifier::new(secret, ClaimRules::default());
        let own = token(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()));
        let hs256 = microseconds(&by_secret, &own).await;

        let pair: Pkcs8V1Der<'_> = KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
        let pem = BASE64_STANDARD.encode(pair.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
        let pair = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let public = Jwk::from_encoding_key(&pair, Algorithm::RS256).unwrap();
        let public = Key::new(DecodingKey::from_jwk(&public).unwrap(), Algorithm::RS256);
        let by_key = Verifier::new(Keys::Public(Box::new(public)), ClaimRules::default());
        let rs256 = microseconds(&by_key, &token(Algorithm::RS256, &pair)).await;

        println!("HS256 {hs256} µs, RS256 {rs256} µs");
        assert!(hs256 < 15 * slower, "HS256 takes {hs256} µs");
        assert!(rs256 < 60 * slower, "RS256 takes {rs256} µs");
    }
}
