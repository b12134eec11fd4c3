//! Idempotency keys, by which a repeated start returns the session of the first.

use std::fmt;

use chrono::TimeDelta;

use crate::Invalid;

/// How long a session holds the idempotency key that started it, counted from its creation.
pub const KEY_LIFETIME: TimeDelta = TimeDelta::hours(24);

/// The caller's key for one start. Every request with this key is the same start.
///
/// A key may be a secret, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Returns the key: 1 to 255 printable ASCII characters. It may be a secret; do not log it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = Invalid;

    /// Accepts 1 to 255 printable ASCII characters.
    fn try_from(text: String) -> Result<Self, Invalid> {
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if text.is_empty() || text.len() > 255 || !printable {
            return Err(Invalid::new("must be 1 to 255 printable ASCII characters"));
        }
        Ok(Self(text))
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencyKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_characters_are_limited_and_debug_hides_key() {
        let key = |text: &str| IdempotencyKey::try_from(text.to_owned());
        for text in ["a", " ", "~", &"k".repeat(255)] {
            assert_eq!(key(text).unwrap().as_str(), text);
        }
        for text in ["", &"k".repeat(256), "a\tb", "a\u{7f}", "schlüssel"] {
            assert!(key(text).is_err(), "{text:?}");
        }
        assert!(!format!("{:?}", key("order-42")).contains("42"));
    }
}
