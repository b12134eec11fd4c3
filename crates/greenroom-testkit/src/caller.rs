//! Access tokens as an identity provider would issue them.

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

/// Signs a token with HS256 that contains exactly these claims. No claim has a default, not even
/// `exp`.
///
/// # Panics
/// Panics if `claims` is not a JSON object, which is a mistake in the test.
#[must_use]
pub fn token(secret: &str, claims: &Value) -> String {
    assert!(claims.is_object(), "the claims must be a JSON object, not {claims}");
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("HS256 can sign every JSON object with every secret")
}

/// Signs a token for a backend of this organization that is valid for one hour.
#[must_use]
pub fn backend_token(secret: &str, organization: Uuid) -> String {
    token(secret, &json!({ "org_id": organization, "exp": seconds_from_now(3_600) }))
}

/// Returns the `NumericDate` (RFC 7519) that is this many seconds from now. Negative values are in
/// the past.
#[must_use]
pub fn seconds_from_now(seconds: i64) -> u64 {
    get_current_timestamp().saturating_add_signed(seconds)
}
