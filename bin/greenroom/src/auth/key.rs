//! One key that verifies tokens, by the one algorithm that is its own.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use secrecy::{ExposeSecret, SecretString};

use super::claims::Claims;

/// How far an identity system's clock and ours may be apart, in seconds.
const LEEWAY: u64 = 30;

/// The shortest DER of an RSA key whose modulus has 2048 bits (RFC 8017, §A.1.1); shorter ones are
/// refused by the cryptography, token by token.
const RSA_2048_BYTES: usize = 270;

/// The object identifier of P-256 (RFC 5480, §2.1.1.1), in DER.
const P256_OID: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

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

    /// The claims of a token that this key signed, and that is good at this time.
    ///
    /// # Errors
    /// With what does not hold.
    pub fn claims(&self, token: &str) -> Result<Claims, ErrorKind> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_public_key_is_taken_from_a_file() {
        for pem in ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
        {
            assert!(Key::of_pem(pem.as_bytes()).is_none(), "{pem}");
        }
    }
}
