//! What the user's participant says about itself in the room.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::Invalid;

const MAX_KEYS: usize = 32;

/// The largest set, in bytes of its compact JSON.
const MAX_BYTES: usize = 1024;

/// What LiveKit's agents and SDKs keep for themselves, such as `lk.agent.state`.
const RESERVED: &str = "lk.";

/// A participant's attributes: up to 32 texts by their keys, 1 KiB of JSON in all.
///
/// They travel in the join token, which its user can read, and everybody in the room sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Jsonb)
)]
#[serde(transparent)]
pub struct ParticipantAttributes(BTreeMap<String, String>);

impl ParticipantAttributes {
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// How long they are as JSON, in bytes.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        serde_json::to_vec(&self.0).map_or(usize::MAX, |json| json.len())
    }

    /// Takes attributes as they were stored: they were checked on their way in.
    #[cfg(feature = "diesel")]
    pub(crate) fn stored(attributes: BTreeMap<String, String>) -> Self {
        Self(attributes)
    }
}

impl fmt::Display for ParticipantAttributes {
    /// As JSON, in one order however they came.
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
        if attributes.keys().any(|key| key.starts_with(RESERVED)) {
            return Err(Invalid::new(
                "must not have keys that begin with lk., which are LiveKit's",
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
        let own = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
        ParticipantAttributes::try_from(texts.iter().map(own).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn both_sides_of_every_limit() {
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
    fn livekits_own_keys_are_refused() {
        assert!(attributes(&[("lk.agent.state", "ready")]).is_err());
        assert!(attributes(&[("lk", "x"), ("LK.a", "x"), ("my.lk.a", "x"), ("", "")]).is_ok());
        assert!(attributes(&[("a\0", "x")]).is_err() && attributes(&[("a", "\0")]).is_err());
    }

    #[test]
    fn their_order_is_one() {
        let told = attributes(&[("b", "2"), ("a", "1")]).unwrap().to_string();
        assert_eq!(told, r#"{"a":"1","b":"2"}"#);
    }
}
