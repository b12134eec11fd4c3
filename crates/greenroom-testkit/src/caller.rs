//! Callers' tokens, as an identity system would issue them.

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

/// An HS256 token with exactly these claims: what is left out (`exp` too) is left out.
///
/// # Panics
/// When the claims are not a JSON object, which is a mistake in the test.
#[must_use]
pub fn token(secret: &str, claims: &Value) -> String {
    assert!(claims.is_object(), "claims are a JSON object, not {claims}");
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("a JSON object and a secret can always be signed with HS256")
}

/// The token of a backend of this organization, good for one hour.
#[must_use]
pub fn backend(secret: &str, organization: Uuid) -> String {
    token(secret, &json!({ "org_id": organization, "exp": in_seconds(3_600) }))
}

/// A `NumericDate` so many seconds from now; negative for the past.
#[must_use]
pub fn in_seconds(seconds: i64) -> u64 {
    get_current_timestamp().saturating_add_signed(seconds)
}
