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
                // Accept only the hyphenated form (RFC 9562, §4): no braces, no `urn:uuid:`.
                let length = uuid::fmt::Hyphenated::LENGTH;
                let hyphenated = Some(text).filter(|text| text.len() == length);
                let id = hyphenated.and_then(|text| Uuid::try_parse(text).ok());
                id.map(Self).ok_or_else(|| Invalid::new("must be a UUID"))
            }
        }
    };
}

id!(
    /// The id of an organization, the tenant that owns sessions and templates. The caller's
    /// identity provider assigns it.
    OrganizationId
);
id!(
    /// The id of a session: a version 7 UUID, so ids sort by time of creation.
    SessionId
);
id!(
    /// The id of a session template. All versions of a template have the same id.
    SessionTemplateId
);

/// Returns the version 7 UUID (RFC 9562, §5.7) for the millisecond of `at` and the random bytes.
fn version_7(at: DateTime<Utc>, random: [u8; 10]) -> Uuid {
    // Version 7 cannot represent times before 1970; use the first millisecond for them.
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

impl SessionId {
    /// Returns the id of a session that is created at `at` by the clock of the process. The id
    /// contains whole milliseconds.
    #[must_use]
    pub fn new(at: DateTime<Utc>, random: [u8; 10]) -> Self {
        Self(version_7(at, random))
    }

    /// Returns the bucket of the session, from 0 to 1,023: the last ten bits of the id, which are
    /// random.
    ///
    /// The store has the same rule in SQL (`session_bucket`); a test compares the two.
    #[must_use]
    pub fn bucket(self) -> Bucket {
        let [.., high, low] = self.0.into_bytes();
        Bucket(i16::from(high & 3) << 8 | i16::from(low))
    }

    /// Returns the smallest id of a session that a process creates at `at` by its own clock, or
    /// later. A query for a range of creation times can therefore use a range of ids, widened by the
    /// difference of the clocks.
    ///
    /// Ids contain whole milliseconds. If `at` is within a millisecond, the bound is the next
    /// millisecond.
    #[must_use]
    pub fn first_from(at: DateTime<Utc>) -> Self {
        let rounded_up = !at.timestamp_subsec_nanos().is_multiple_of(1_000_000);
        let millis = at.timestamp_millis().saturating_add(i64::from(rounded_up));
        // Version 7 has 48 bits for the milliseconds, which last until the year 10889.
        let millis = u64::try_from(millis).unwrap_or_default().min((1 << 48) - 1);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid())
    }
}

/// A group of sessions that one process checks, from 0 to 1,023.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(i16);

impl Bucket {
    /// The number of buckets.
    pub const COUNT: u16 = 1_024;

    /// The bucket whose holder does the work of which there is one piece for all replicas.
    pub const FIRST: Self = Self(0);

    /// Returns the bucket with this number. `None` means that there is no such bucket.
    #[must_use]
    pub fn new(number: i16) -> Option<Self> {
        u16::try_from(number).is_ok_and(|number| number < Self::COUNT).then_some(Self(number))
    }

    /// Returns the number of the bucket.
    #[must_use]
    pub fn number(self) -> i16 {
        self.0
    }
}

impl SessionTemplateId {
    /// Returns the id of a template created at `at`, in milliseconds.
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
    fn session_id_is_version_7_with_creation_millisecond() {
        let id = SessionId::new(at(1_763_735_422_123), [0xff; 10]);
        assert_eq!(id.0.get_version_num(), 7);
        let (seconds, nanos) = id.0.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_763_735_422, 123_000_000));
    }

    #[test]
    fn ids_sort_by_creation_time_before_random_part() {
        assert!(SessionId::new(at(1_000), [0xff; 10]) < SessionId::new(at(1_001), [0; 10]));
    }

    #[test]
    fn creation_time_bound_has_millisecond_precision() {
        let session = |millis| SessionId::new(at(millis), [0; 10]);
        let last = |millis| SessionId::new(at(millis), [0xff; 10]);
        let bound = SessionId::first_from(at(1_000));
        assert!(last(999) < bound && bound <= session(1_000));
        // A bound in the middle of a millisecond excludes the ids of that millisecond.
        let half = SessionId::first_from(at(1_000) + chrono::Duration::microseconds(500));
        assert!(last(1_000) < half && half <= session(1_001));
        assert!(SessionId::first_from(at(-1)) <= session(0));
        assert!(SessionId::first_from(DateTime::<Utc>::MAX_UTC) > last(253_402_300_799_999));
    }

    #[test]
    fn only_hyphenated_uuids_are_accepted() {
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
