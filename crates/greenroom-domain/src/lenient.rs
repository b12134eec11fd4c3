//! Values of rows that the next version or an edit by hand may have written.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// The text of a value that this version does not know.
pub const UNKNOWN: &str = "unknown";

/// A value of an enumeration, as a row contains it. During a rolling update, the next version may
/// write values that this version does not know. Code that decides must handle [`Lenient::Unknown`]
/// explicitly; the keeper decodes strictly instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow),
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

impl<T: FromStr<Err = Invalid>> Lenient<T> {
    /// Returns the value.
    ///
    /// # Errors
    /// Returns an [`Invalid`] that lists the known values, if this version does not know the value.
    pub fn checked(self) -> Result<T, Invalid> {
        match self {
            Self::Known(value) => Ok(value),
            // "unknown" is no value of any enumeration, so parsing always fails and lists the known
            // values.
            Self::Unknown => UNKNOWN.parse(),
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

/// A text as a row contains it, even if it breaks the rules of `T`. Responses show the text as it is.
/// Code that uses the value calls [`Stored::checked`] or matches [`Stored::Valid`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "diesel",
    derive(diesel::deserialize::FromSqlRow),
    diesel(sql_type = diesel::sql_types::Text)
)]
pub enum Stored<T> {
    /// A text that follows the rules.
    Valid(T),
    /// Any other text.
    Invalid(String),
}

impl<T> Stored<T> {
    /// Returns the value, or `None` if the text breaks the rules.
    pub fn valid(&self) -> Option<&T> {
        match self {
            Self::Valid(value) => Some(value),
            Self::Invalid(_) => None,
        }
    }
}

impl<T: Clone + TryFrom<String, Error = Invalid>> Stored<T> {
    /// Returns the value.
    ///
    /// # Errors
    /// Returns the rule that the text breaks.
    pub fn checked(&self) -> Result<T, Invalid> {
        match self {
            Self::Valid(value) => Ok(value.clone()),
            Self::Invalid(text) => text.clone().try_into(),
        }
    }
}

impl<T: TryFrom<String, Error = Invalid>> From<&str> for Stored<T> {
    fn from(text: &str) -> Self {
        T::try_from(text.to_owned()).map_or_else(|_| Self::Invalid(text.to_owned()), Self::Valid)
    }
}

impl<T: Into<String>> From<Stored<T>> for String {
    fn from(stored: Stored<T>) -> Self {
        match stored {
            Stored::Valid(value) => value.into(),
            Stored::Invalid(text) => text,
        }
    }
}

impl<T: PartialEq> PartialEq<T> for Stored<T> {
    fn eq(&self, other: &T) -> bool {
        self.valid() == Some(other)
    }
}

impl<T: fmt::Display> fmt::Display for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid(value) => value.fmt(f),
            Self::Invalid(text) => f.write_str(text),
        }
    }
}
