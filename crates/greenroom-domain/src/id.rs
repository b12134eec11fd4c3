//! Identifiers of organizations, sessions and session templates.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Invalid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(
            feature = "diesel",
            derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
            diesel(sql_type = diesel::sql_types::Uuid)
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                // In its usual form alone (RFC 9562, §4): no braces, no urn, no hyphens left out.
                let usual = Some(text).filter(|text| text.len() == uuid::fmt::Hyphenated::LENGTH);
                let id = usual.and_then(|text| Uuid::try_parse(text).ok());
                id.map(Self).ok_or_else(|| Invalid::new("must be a UUID"))
            }
        }
    };
}

id!(
    /// The tenant everything belongs to; given by the caller's own identity system.
    OrganizationId
);
id!(
    /// A session. Version 7, so that the order of ids is the order of creation.
    SessionId
);
id!(
    /// A session template, the same over all its versions.
    SessionTemplateId
);

/// A version 7 UUID (RFC 9562, §5.7) of that millisecond and these random bytes.
fn version_7(at: DateTime<Utc>, random: [u8; 10]) -> Uuid {
    // Before 1970 there is no version 7; such a clock gets the first millisecond.
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

impl SessionId {
    /// The id of a session created at `at`, to the millisecond.
    #[must_use]
    pub fn new(at: DateTime<Utc>, random: [u8; 10]) -> Self {
        Self(version_7(at, random))
    }

    /// The least id of a session created at `at` or later: a bound on the time of creation is one
    /// on the id. Sessions know their millisecond, so one that has begun at `at` comes before it.
    #[must_use]
    pub fn first_from(at: DateTime<Utc>) -> Self {
        let into_the_next = !at.timestamp_subsec_nanos().is_multiple_of(1_000_000);
        let millis = at.timestamp_millis().saturating_add(i64::from(into_the_next));
        // 48 bits are all that version 7 has for them; they last until the year 10889.
        let millis = u64::try_from(millis).unwrap_or_default().min((1 << 48) - 1);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid())
    }
}

impl SessionTemplateId {
    /// The id of a template created at `at`, to the millisecond.
    #[must_use]
    pub fn new(at: DateTime<Utc>, random: [u8; 10]) -> Self {
        Self(version_7(at, random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    #[test]
    fn a_session_id_is_version_7_of_its_millisecond() {
        let id = SessionId::new(at(1_763_735_422_123), [0xff; 10]);
        assert_eq!(id.0.get_version_num(), 7);
        let (seconds, nanos) = id.0.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_763_735_422, 123_000_000));
    }

    #[test]
    fn ids_sort_by_creation_whatever_their_random_part() {
        assert!(SessionId::new(at(1_000), [0xff; 10]) < SessionId::new(at(1_001), [0; 10]));
    }

    #[test]
    fn a_bound_holds_to_the_millisecond() {
        let session = |millis| SessionId::new(at(millis), [0; 10]);
        let last = |millis| SessionId::new(at(millis), [0xff; 10]);
        let bound = SessionId::first_from(at(1_000));
        assert!(last(999) < bound && bound <= session(1_000));
        // Half a millisecond on, what was created in that millisecond came before.
        let half = SessionId::first_from(at(1_000) + chrono::Duration::microseconds(500));
        assert!(last(1_000) < half && half <= session(1_001));
        assert!(SessionId::first_from(at(-1)) <= session(0));
        assert!(SessionId::first_from(DateTime::<Utc>::MAX_UTC) > last(253_402_300_799_999));
    }

    #[test]
    fn text_that_is_no_uuid_is_refused() {
        assert!("0193B8A0-0000-7000-8000-000000000001".parse::<SessionId>().is_ok());
        for text in [
            "42",
            "0193b8a0000070008000000000000001",
            "{0193b8a0-0000-7000-8000-000000000001}",
            "urn:uuid:0193b8a0-0000-7000-8000-000000000001",
        ] {
            assert_eq!(text.parse::<SessionId>().unwrap_err().to_string(), "must be a UUID");
        }
    }
}
