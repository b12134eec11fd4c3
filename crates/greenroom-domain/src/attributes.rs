//! The attributes of a user's participant in the room.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::Invalid;

const MAX_KEYS: usize = 32;

/// Maximum size of all attributes as compact JSON, in bytes.
const MAX_BYTES: usize = 1024;

/// Prefix of the keys that LiveKit's agents and SDKs use, such as `lk.agent.state`.
const RESERVED_PREFIX: &str = "lk.";

/// A participant's attributes: up to 32 keys with text values, at most 1 KiB as JSON.
///
/// The join token contains them, so its user can read them. LiveKit shows them to all participants
/// in the room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Jsonb)
)]
#[serde(transparent)]
pub struct ParticipantAttributes(BTreeMap<String, String>);

impl ParticipantAttributes {
    /// Returns the attributes, sorted by key.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Returns the size of the attributes as compact JSON, in bytes.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        serde_json::to_vec(&self.0).map_or(usize::MAX, |json| json.len())
    }

    /// Wraps stored attributes without a check; they were checked before they were stored.
    #[cfg(feature = "diesel")]
    pub(crate) fn stored(attributes: BTreeMap<String, String>) -> Self {
        Self(attributes)
    }
}

impl fmt::Display for ParticipantAttributes {
    /// Writes JSON with sorted keys, so equal attributes have equal text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(&self.0).map_err(|_| fmt::Error)?)
    }
}

impl TryFrom<BTreeMap<String, String>> for ParticipantAttributes {
    type Error = Invalid;

    fn try_from(attributes: BTreeMap<String, String>) -> Result<Self, Invalid> {
        if attributes.len() > MAX_KEYS {
            return Err(Invalid::new("must have at most 32 keys"));
        }
        if attributes.keys().any(|key| key.starts_with(RESERVED_PREFIX)) {
            return Err(Invalid::new(
                "must not have keys that begin with lk., which LiveKit reserves",
            ));
        }
        if attributes.iter().any(|(key, text)| key.contains('\0') || text.contains('\0')) {
            return Err(Invalid::new("must not contain the character U+0000"));
        }
        let attributes = Self(attributes);
        if attributes.json_bytes() > MAX_BYTES {
            return Err(Invalid::new("must be at most 1 KiB of JSON"));
        }
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(texts: &[(&str, &str)]) -> Result<ParticipantAttributes, Invalid> {
        let owned = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
        ParticipantAttributes::try_from(texts.iter().map(owned).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn key_count_and_size_are_limited() {
        let keys: Vec<_> = (0..33).map(|number| format!("k{number}")).collect();
        let texts: Vec<_> = keys.iter().map(|key| (key.as_str(), "x")).collect();
        assert!(attributes(&texts[..32]).is_ok() && attributes(&texts).is_err());
        let overhead = r#"{"k":""}"#.len();
        let longest = "x".repeat(MAX_BYTES - overhead);
        assert!(attributes(&[("k", &longest)]).is_ok());
        assert!(attributes(&[("k", &format!("{longest}x"))]).is_err());
        assert!(attributes(&[("k", &"\u{1}".repeat(200))]).is_err(), "1,200 bytes of JSON");
    }

    #[test]
    fn reserved_keys_and_nul_are_refused() {
        assert!(attributes(&[("lk.agent.state", "ready")]).is_err());
        assert!(attributes(&[("lk", "x"), ("LK.a", "x"), ("my.lk.a", "x"), ("", "")]).is_ok());
        assert!(attributes(&[("a\0", "x")]).is_err() && attributes(&[("a", "\0")]).is_err());
    }

    #[test]
    fn attributes_are_written_in_key_order() {
        let written = attributes(&[("b", "2"), ("a", "1")]).unwrap().to_string();
        assert_eq!(written, r#"{"a":"1","b":"2"}"#);
    }
}
