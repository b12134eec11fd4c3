//! A key that verifies tokens with one algorithm.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use secrecy::{ExposeSecret, SecretString};

use super::claims::Claims;

/// Tolerated difference between the identity provider's clock and this machine's, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// Minimum length in bytes of an RSA public key in DER with a 2048-bit modulus (RFC 8017, §A.1.1).
/// The cryptography library also refuses shorter keys, but only when it verifies a token.
const MIN_RSA_DER_BYTES: usize = 270;

/// The object identifier of P-256 (RFC 5480, §2.1.1.1), in DER.
const P256_OID: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// A key and the one algorithm that it verifies. The `alg` of a token's header never selects the
/// algorithm.
pub struct Key {
    decoding: DecodingKey,
    validation: Validation,
}

impl Key {
    #[must_use]
    pub fn new(decoding: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        // `ClaimRules` checks issuer and audience, more strictly than jsonwebtoken.
        validation.validate_aud = false;
        Self { decoding, validation }
    }

    /// A shared secret (HS256).
    #[must_use]
    pub fn from_secret(secret: &SecretString) -> Self {
        let decoding = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self::new(decoding, Algorithm::HS256)
    }

    /// Reads the public key of a PEM file: RSA of at least 2048 bits (RS256), EC on P-256 (ES256)
    /// or Ed25519 (`EdDSA`). `None` means that the file contains no such key.
    #[must_use]
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        // jsonwebtoken accepts a private key here, and then verifies no token with it.
        let text = std::str::from_utf8(pem).ok().filter(|text| !text.contains("PRIVATE KEY"))?;
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256));
        let ec = || DecodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256));
        let ed = || DecodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA));
        let (decoding, algorithm) = rsa.or_else(|_| ec()).or_else(|_| ed()).ok()?;
        let usable = match algorithm {
            Algorithm::RS256 => {
                decoding.try_get_as_bytes().is_ok_and(|key| key.len() >= MIN_RSA_DER_BYTES)
            }
            Algorithm::ES256 => is_on_p256(text),
            _ => true,
        };
        usable.then(|| Self::new(decoding, algorithm))
    }

    /// Returns the claims of a token if this key signed it and the token is valid now.
    ///
    /// # Errors
    /// Returns the kind of the check that failed.
    pub fn claims(&self, token: &str) -> Result<Claims, ErrorKind> {
        let decoded = decode::<Claims>(token, &self.decoding, &self.validation);
        let decoded = decoded.map_err(jsonwebtoken::errors::Error::into_kind)?;
        // RFC 7515, §4.1.11: a recipient must refuse a token with critical extensions that it does
        // not implement. Greenroom implements no extension.
        if decoded.header.crit.is_some() {
            return Err(ErrorKind::InvalidToken);
        }
        Ok(decoded.claims)
    }
}

/// Returns whether the key in a PEM file names P-256 as its curve.
fn is_on_p256(pem: &str) -> bool {
    let body: String = pem.lines().filter(|line| !line.contains('-')).map(str::trim).collect();
    let der = BASE64_STANDARD.decode(body).unwrap_or_default();
    der.windows(P256_OID.len()).any(|bytes| bytes == P256_OID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_without_public_key_is_refused() {
        for pem in ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
        {
            assert!(Key::from_pem(pem.as_bytes()).is_none(), "{pem}");
        }
    }
}
