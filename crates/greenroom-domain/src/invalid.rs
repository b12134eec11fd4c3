//! The one error of every parser in this crate.

use std::borrow::Cow;

/// Why a value was refused, as a sentence that says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Invalid {
    /// The position of the wrong element, when the value is a list.
    pub element: Option<usize>,
    /// What would be right; it never repeats the value itself.
    pub detail: Cow<'static, str>,
}

impl Invalid {
    #[must_use]
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { element: None, detail: detail.into() }
    }

    pub(crate) fn at(element: usize, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { element: Some(element), detail: detail.into() }
    }
}

/// Refuses text that is not `1..=max` characters long or holds a control character: neither
/// PostgreSQL (NUL) nor a person's screen (the others) keeps those.
pub(crate) fn check_text(text: &str, max: usize) -> Result<(), Invalid> {
    if !(1..=max).contains(&text.chars().count()) {
        return Err(Invalid::new(format!("must be 1 to {max} characters long")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new("must not contain control characters"));
    }
    Ok(())
}
