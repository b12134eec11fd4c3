//! An error with its causes.

use std::error::Error;
use std::{fmt, iter};

/// Displays an error and all its causes in one line, joined by `: `.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl<'a> ErrorChain<'a> {
    /// Iterates over the error and its causes. The error is first.
    pub fn iter(self) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
        iter::successors(Some(self.0), |&error| error.source())
    }
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        self.iter().skip(1).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Fault {
        text: &'static str,
        source: Option<Box<Fault>>,
    }

    #[test]
    fn all_causes_are_displayed_in_order() {
        let caused_by = |text, source: Fault| Fault { text, source: Some(Box::new(source)) };
        let root = Fault { text: "connection refused", source: None };
        assert_eq!(ErrorChain(&root).to_string(), "connection refused");
        let error = caused_by("the call failed", caused_by("no connection", root));
        assert_eq!(
            ErrorChain(&error).to_string(),
            "the call failed: no connection: connection refused"
        );
    }
}
