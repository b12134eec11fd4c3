//! Verifying a token: the key it must be signed with, and the times it is good for.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use secrecy::{ExposeSecret, SecretString};

use super::claims::{ClaimRules, Claims, Identity};
use super::jwks::Jwks;

/// How far an identity system's clock and ours may be apart, in seconds.
const LEEWAY: u64 = 30;

/// The shortest DER of an RSA key whose modulus has 2048 bits (RFC 8017, §A.1.1); shorter ones are
/// refused by the cryptography, token by token.
const RSA_2048_BYTES: usize = 270;

/// The object identifier of P-256 (RFC 5480, §2.1.1.1), in DER.
const P256_OID: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

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

/// A key, and the one algorithm it verifies: what a token's own header says of algorithms chooses
/// nothing.
pub struct Key {
    decoding: DecodingKey,
    validation: Validation,
}

impl Key {
    #[must_use]
    pub fn new(decoding: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        // Issuer and audience are compared by our own rules, which are narrower.
        validation.validate_aud = false;
        Self { decoding, validation }
    }

    #[must_use]
    pub fn of_secret(secret: &SecretString) -> Self {
        let decoding = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self::new(decoding, Algorithm::HS256)
    }

    /// The public key of a PEM file: RSA of 2048 bits or more, EC on P-256, or Ed25519.
    #[must_use]
    pub fn of_pem(pem: &[u8]) -> Option<Self> {
        // jsonwebtoken would take a private key for a public one that verifies nothing.
        let text = std::str::from_utf8(pem).ok().filter(|text| !text.contains("PRIVATE KEY"))?;
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256));
        let ec = || DecodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256));
        let ed = || DecodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA));
        let (decoding, algorithm) = rsa.or_else(|_| ec()).or_else(|_| ed()).ok()?;
        let usable = match algorithm {
            Algorithm::RS256 => {
                decoding.try_get_as_bytes().is_ok_and(|key| key.len() >= RSA_2048_BYTES)
            }
            Algorithm::ES256 => is_on_p256(text),
            _ => true,
        };
        usable.then(|| Self::new(decoding, algorithm))
    }

    fn claims(&self, token: &str) -> Result<Claims, ErrorKind> {
        let decoded = decode::<Claims>(token, &self.decoding, &self.validation);
        let decoded = decoded.map_err(jsonwebtoken::errors::Error::into_kind)?;
        // RFC 7515, §4.1.11: who does not know what is critical must not accept the token.
        if decoded.header.crit.is_some() {
            return Err(ErrorKind::InvalidToken);
        }
        Ok(decoded.claims)
    }
}

/// Whether the key of a PEM file names P-256 as its curve.
fn is_on_p256(pem: &str) -> bool {
    let body: String = pem.lines().filter(|line| !line.contains('-')).map(str::trim).collect();
    let der = BASE64_STANDARD.decode(body).unwrap_or_default();
    der.windows(P256_OID.len()).any(|bytes| bytes == P256_OID)
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
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{EncodingKey, Header, encode};
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

    #[test]
    fn only_a_public_key_is_taken_from_a_file() {
        for pem in ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
        {
            assert!(Key::of_pem(pem.as_bytes()).is_none(), "{pem}");
        }
    }
}
