//! Ids of end users, and identities and names of participants.

use std::fmt;

use serde::Serialize;

use crate::Invalid;
use crate::invalid::check_text;

/// Maximum length of an identity that LiveKit's server accepts, in bytes.
const LIVEKIT_IDENTITY_BYTES: usize = 256;

/// The id of an end user in the caller's system: 1 to 128 characters, at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
#[serde(transparent)]
pub struct UserId(String);

impl UserId {
    /// Returns the text: 1 to 128 characters, at most 256 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<UserId> for String {
    fn from(user: UserId) -> Self {
        user.0
    }
}

impl TryFrom<String> for UserId {
    type Error = Invalid;

    /// Accepts 1 to 128 characters and at most 256 bytes, without control characters.
    fn try_from(text: String) -> Result<Self, Invalid> {
        check_text(&text, 128)?;
        if text.len() > LIVEKIT_IDENTITY_BYTES {
            return Err(Invalid::new("must be at most 256 bytes in UTF-8"));
        }
        Ok(Self(text))
    }
}

/// The participant identity with which a session's user joins the room.
///
/// It is the user's id, which agent code expects, because each session has a separate room. A
/// session without a user id gets a guest identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
pub struct ParticipantIdentity(String);

impl ParticipantIdentity {
    /// Returns a guest identity: `guest-` and eight hexadecimal digits.
    #[must_use]
    pub fn guest(random: u32) -> Self {
        Self(format!("guest-{random:08x}"))
    }

    /// Returns the text: 1 to 128 characters, at most 256 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&UserId> for ParticipantIdentity {
    fn from(user: &UserId) -> Self {
        Self(user.0.clone())
    }
}

impl TryFrom<String> for ParticipantIdentity {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        UserId::try_from(text).map(|user| Self(user.0))
    }
}

/// The display name of a session's user in the room. It has the same limits as a [`UserId`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
pub struct ParticipantName(String);

impl ParticipantName {
    /// Returns the text: 1 to 128 characters, at most 256 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ParticipantName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        UserId::try_from(text).map(|user| Self(user.0))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ParticipantIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Result<UserId, Invalid> {
        UserId::try_from(text.to_owned())
    }

    #[test]
    fn lengths_are_limited_in_characters_and_bytes() {
        assert!(user("").is_err());
        assert!(user("a").is_ok());
        assert!(user(&"a".repeat(128)).is_ok());
        assert!(user(&"a".repeat(129)).is_err());
        assert!(user(&"ä".repeat(128)).is_ok(), "256 bytes");
        assert!(user(&"€".repeat(86)).is_err(), "258 bytes");
    }

    #[test]
    fn control_characters_are_refused() {
        for text in ["a\0", "a\nb", "\u{7f}", "\u{85}"] {
            assert!(user(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn guest_identity_has_eight_digits() {
        assert_eq!(ParticipantIdentity::guest(0xbeef).as_str(), "guest-0000beef");
    }
}
