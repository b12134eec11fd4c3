//! Enumerated values of rows that the next version may have written.

use std::fmt;

/// The text of a value that this version does not know.
pub const UNKNOWN: &str = "unknown";

/// A value of an enumeration, as a row contains it. During a rolling update, the next version may
/// write values that this version does not know. Code that decides must handle [`Lenient::Unknown`]
/// explicitly; claims decode strictly instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
pub enum Lenient<T> {
    /// A value that this version knows.
    Known(T),
    /// Any other text. Shown as [`UNKNOWN`].
    Unknown,
}

impl<T> Lenient<T> {
    /// Returns the value, or `None` if this version does not know it.
    #[must_use]
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown => None,
        }
    }
}

impl<T> From<T> for Lenient<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for Lenient<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(value) if value == other)
    }
}

impl<T: fmt::Display> fmt::Display for Lenient<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unknown => f.write_str(UNKNOWN),
        }
    }
}
