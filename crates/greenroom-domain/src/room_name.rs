//! Room names, `session_YYYYMMDD_HHMMSS_xxxxxx`, and a sequence of suffixes without repetition.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::Invalid;

/// Number of different suffixes, which have six hexadecimal digits.
const SUFFIXES: u32 = 1 << 24;

/// The name of a LiveKit room: URL-safe, at most 64 bytes, unique in the whole LiveKit deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
pub struct RoomName(String);

impl RoomName {
    /// Returns the name of a room opened at `at`, in UTC seconds. Only the low 24 bits of `suffix`
    /// are used.
    #[must_use]
    pub fn new(at: DateTime<Utc>, suffix: u32) -> Self {
        Self(format!("session_{}_{:06x}", at.format("%Y%m%d_%H%M%S"), suffix % SUFFIXES))
    }

    /// Returns the text: 1 to 64 of the characters `A-Z a-z 0-9 _ -`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<RoomName> for String {
    fn from(name: RoomName) -> Self {
        name.0
    }
}

impl TryFrom<String> for RoomName {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        let is_url_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(is_url_safe) {
            Ok(Self(name))
        } else {
            Err(Invalid::new("must be 1 to 64 of the characters A-Z a-z 0-9 _ -"))
        }
    }
}

/// A sequence of all 2^24 suffixes that contains each suffix once before it repeats.
///
/// Of 1,000 random suffixes in one second, two would be equal with a probability of 3 %. An odd
/// step is coprime to the number of suffixes, so the sequence contains every suffix.
#[derive(Debug, Clone, Copy)]
pub struct SuffixSequence {
    start: u32,
    step: u32,
}

impl SuffixSequence {
    /// Returns the sequence with a random start and a random step. Two processes are unlikely to
    /// have both in common. An even `step` becomes odd.
    #[must_use]
    pub fn new(start: u32, step: u32) -> Self {
        Self { start, step: step | 1 }
    }

    /// Returns the suffix at `position`. The sequence repeats after 2^24 positions.
    #[must_use]
    pub fn suffix(self, position: u32) -> u32 {
        self.start.wrapping_add(position.wrapping_mul(self.step)) % SUFFIXES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn name_contains_second_in_utc() {
        let name = RoomName::new(at(1_795_357_822), 0xa7_b3c9);
        assert_eq!(name.as_str(), "session_20261122_143022_a7b3c9");
    }

    #[test]
    fn name_with_slash_is_refused() {
        assert!(RoomName::try_from("session/../admin".to_owned()).is_err());
    }

    proptest! {
        #[test]
        fn every_name_is_valid_and_has_fixed_length(
            seconds in 0_i64..253_402_300_800, suffix: u32,
        ) {
            let name = RoomName::new(at(seconds), suffix);
            prop_assert_eq!(name.as_str().len(), "session_20261122_143022_a7b3c9".len());
            prop_assert!(RoomName::try_from(name.as_str().to_owned()).is_ok());
        }

        #[test]
        fn different_positions_have_different_suffixes(
            start: u32, step: u32, from: u32, gap in 1_u32..SUFFIXES,
        ) {
            let sequence = SuffixSequence::new(start, step);
            let other = sequence.suffix(from.wrapping_add(gap));
            prop_assert_ne!(sequence.suffix(from), other);
        }
    }
}
