//! Whole numbers with a range, such as the size of a page or a number of sessions.
//!
//! Each range is stated only here, and in `template.rs` for the times of a template. A value outside
//! of its range cannot be created.

use crate::Invalid;

/// Defines a type per quantity: its number type, its range, and its name in error messages.
macro_rules! quantities {
    ($($(#[$doc:meta])* $name:ident($number:ident) = $min:literal ..= $max:literal $($unit:ident)?, $label:literal;)+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name($number);

        impl $name {
            /// The smallest value.
            pub const MIN: $number = $min;
            /// The largest value.
            pub const MAX: $number = $max;

            /// Returns the constant `N`. A constant out of range does not compile.
            #[must_use]
            pub const fn constant<const N: $number>() -> Self {
                const { assert!(Self::MIN <= N && N <= Self::MAX, "the constant is out of range") }
                Self(N)
            }

            /// Returns the number.
            #[must_use]
            pub const fn get(self) -> $number {
                self.0
            }

            fn invalid() -> $crate::InvalidValue {
                let number = concat!("a whole number" $(, " of ", stringify!($unit))?);
                let invalid = $crate::quantity::out_of_range(number, $min.into(), $max.into());
                $crate::InvalidValue::new($label, invalid)
            }
        }

        impl TryFrom<i64> for $name {
            type Error = $crate::InvalidValue;

            fn try_from(number: i64) -> Result<Self, $crate::InvalidValue> {
                let number = $number::try_from(number).ok();
                let in_range = number.filter(|number| (Self::MIN..=Self::MAX).contains(number));
                in_range.map(Self).ok_or_else(Self::invalid)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::InvalidValue;

            fn from_str(text: &str) -> Result<Self, $crate::InvalidValue> {
                text.parse::<i64>().map_err(|_| Self::invalid())?.try_into()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+ };
}

/// Defines a type per number of seconds that PostgreSQL stores as `integer`.
macro_rules! seconds {
    ($($(#[$doc:meta])* $name:ident = $min:literal ..= $max:literal, $label:literal;)+) => {
        $crate::quantity::quantities! { $(
            $(#[$doc])*
            #[cfg_attr(
                feature = "diesel",
                derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
                diesel(sql_type = diesel::sql_types::Integer)
            )]
            $name(i32) = $min ..= $max seconds, $label;
        )+ }
    };
}
pub(crate) use {quantities, seconds};

quantities! {
    /// Maximum number of items on a page of a list: 1 to 200.
    PageLimit(u16) = 1..=200, "page limit";
    /// Number of items before a page of a list: 0 to 10,000. Use a cursor beyond that, because
    /// PostgreSQL reads and discards all these items.
    PageOffset(u16) = 0..=10_000, "page offset";
    /// Maximum number of connections in a pool: 2 to 200.
    PoolSize(u16) = 2..=200, "pool size";
    /// Maximum number of concurrent calls to LiveKit: 1 to 10,000.
    CallsInFlight(u16) = 1..=10_000, "number of calls in flight";
    /// Number of calls to LiveKit per minute: 1 to 1,000,000.
    CallsPerMinute(u32) = 1..=1_000_000, "number of calls per minute";
    /// Number of session starts per minute: 1 to 1,000,000.
    StartsPerMinute(u32) = 1..=1_000_000, "number of starts per minute";
    /// Maximum number of open sessions (`pending` or `active`): 0 to 1,000,000,000.
    SessionCount(i32) = 0..=1_000_000_000, "number of sessions";
    /// Number of days for which a session is kept after it is over: 1 to 36,500.
    RetentionDays(i32) = 1..=36_500, "number of days";
    /// Time for which a request waits for a session, in seconds: 1 to 30.
    WaitSeconds(u8) = 1..=30, "number of seconds to wait";
}

seconds! {
    /// Mean interval between two checks of an idle session against LiveKit: 1 second to 1 hour.
    ReconcileInterval = 1..=3_600, "reconcile interval";
}

pub(crate) fn out_of_range(number: &str, min: i64, max: i64) -> Invalid {
    Invalid::new(format!("must be {number} from {min} to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::JoinWindow;

    #[test]
    fn seconds_out_of_range_are_refused() {
        assert!(JoinWindow::try_from(29).is_err() && JoinWindow::try_from(30).is_ok());
        assert!(JoinWindow::try_from(86_400).is_ok() && JoinWindow::try_from(86_401).is_err());
        assert!(JoinWindow::try_from(i64::from(u32::MAX) + 61).is_err(), "wraps to 60 in 32 bits");
    }

    #[test]
    fn quantities_out_of_range_are_refused() {
        for number in [i64::MIN, -1, 0, 201, 65_537, i64::MAX] {
            assert!(PageLimit::try_from(number).is_err(), "{number}");
        }
        assert_eq!(PageLimit::try_from(1).unwrap().get(), PageLimit::MIN);
        assert_eq!(PageLimit::try_from(200).unwrap(), PageLimit::constant::<200>());
        assert_eq!(PageOffset::try_from(0).unwrap().get(), 0);
        assert!(SessionCount::try_from(1_000_000_001).is_err());
    }

    #[test]
    fn error_names_the_value_and_its_range() {
        let refused = "many".parse::<PoolSize>().unwrap_err();
        assert_eq!(refused.to_string(), "pool size must be a whole number from 2 to 200");
        assert_eq!(Invalid::from(refused).detail, "must be a whole number from 2 to 200");
        let refused = "1.5".parse::<JoinWindow>().unwrap_err();
        let expected = "join window must be a whole number of seconds from 30 to 86400";
        assert_eq!(refused.to_string(), expected);
    }
}
