//! Keys of an identity system, made for each test.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// The head of a public key on this curve, before its point (RFC 5480).
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const P384: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";

/// A private key, and what an identity system tells of it.
pub struct KeyPair {
    pub algorithm: Algorithm,
    pub public_pem: String,
    pub private_pem: String,
    signing: EncodingKey,
}

impl KeyPair {
    pub fn rsa() -> Self {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let private = pem("PRIVATE", private.as_ref());
        Self {
            algorithm: Algorithm::RS256,
            public_pem: pem("PUBLIC", public.as_ref()),
            signing: EncodingKey::from_rsa_pem(private.as_bytes()).unwrap(),
            private_pem: private,
        }
    }

    pub fn ec() -> Self {
        Self::on_curve(&ECDSA_P256_SHA256_FIXED_SIGNING, P256, Algorithm::ES256)
    }

    /// A key of a curve whose algorithm is not accepted.
    pub fn ec_384() -> Self {
        Self::on_curve(&ECDSA_P384_SHA384_FIXED_SIGNING, P384, Algorithm::ES384)
    }

    fn on_curve(curve: &'static EcdsaSigningAlgorithm, head: &[u8], algorithm: Algorithm) -> Self {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let private = pem("PRIVATE", pair.to_pkcs8v1().unwrap().as_ref());
        let public = [head, pair.public_key().as_ref()].concat();
        let signing = EncodingKey::from_ec_pem(private.as_bytes()).unwrap();
        Self { algorithm, public_pem: pem("PUBLIC", &public), private_pem: private, signing }
    }

    pub fn ed() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private = pem("PRIVATE", pair.to_pkcs8v1().unwrap().as_ref());
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            algorithm: Algorithm::EdDSA,
            public_pem: pem("PUBLIC", public.as_ref()),
            signing: EncodingKey::from_ed_pem(private.as_bytes()).unwrap(),
            private_pem: private,
        }
    }

    /// The key as an identity system publishes it.
    pub fn jwk(&self, id: &str) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.signing, self.algorithm).unwrap())
                .unwrap();
        jwk["kid"] = json!(id);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A token with exactly this head and these claims, as JSON texts that may be wrong.
    pub fn sign(&self, head: &str, claims: &str) -> String {
        let message = signed_part(head, claims);
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.signing, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// A token with an ordinary head that names this key.
    pub fn token(&self, key_id: Option<&str>, claims: &Value) -> String {
        let mut head = json!({"typ": "JWT", "alg": self.algorithm});
        if let Some(id) = key_id {
            head["kid"] = json!(id);
        }
        self.sign(&head.to_string(), &claims.to_string())
    }
}

/// What of a token is signed.
pub fn signed_part(head: &str, claims: &str) -> String {
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}", encode(head), encode(claims))
}

/// An HS256 token with exactly this head and these claims.
pub fn sign_by_secret(secret: &[u8], head: &str, claims: &str) -> String {
    let message = signed_part(head, claims);
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {what} KEY-----\n{}\n-----END {what} KEY-----\n", lines.join("\n"))
}
