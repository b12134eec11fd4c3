//! The errors that every parser in this crate returns.

use std::borrow::Cow;

/// The reason why a value was refused, as a sentence that describes a valid value.
///
/// The sentence starts with "must". API callers read it next to the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
#[non_exhaustive]
pub struct Invalid {
    /// Index of the invalid element if the value is a list. `None` means the whole value.
    pub element: Option<usize>,
    /// Description of a valid value. It never contains the refused value.
    pub detail: Cow<'static, str>,
}

impl Invalid {
    /// Creates the error for a whole value. `detail` starts with "must" and must not contain the
    /// refused value.
    #[must_use]
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { element: None, detail: detail.into() }
    }

    pub(crate) fn at(element: usize, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { element: Some(element), detail: detail.into() }
    }
}

/// The reason why a value was refused, with the name of the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {invalid}")]
#[non_exhaustive]
pub struct InvalidValue {
    /// The name of the value, such as `page limit`.
    pub name: &'static str,
    /// Description of a valid value.
    pub invalid: Invalid,
}

impl InvalidValue {
    /// Adds the name of the value to an error.
    #[must_use]
    pub fn new(name: &'static str, invalid: Invalid) -> Self {
        Self { name, invalid }
    }
}

impl From<InvalidValue> for Invalid {
    /// Drops the name, for a caller that shows the name of its own field.
    fn from(value: InvalidValue) -> Self {
        value.invalid
    }
}

/// Checks that `text` has 1 to `max` characters and no control characters. PostgreSQL cannot store
/// NUL, and other control characters garble a terminal.
pub(crate) fn check_text(text: &str, max: usize) -> Result<(), Invalid> {
    if !(1..=max).contains(&text.chars().count()) {
        return Err(Invalid::new(format!("must be 1 to {max} characters long")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new("must not contain control characters"));
    }
    Ok(())
}
