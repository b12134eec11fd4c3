//! The log of repeated work: of several failures in a row, only the first is logged.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::Error;

/// The outcome of work that may have panicked.
pub(super) type Caught<T> = Result<Result<T, Error>, Panicked>;

/// The work has panicked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panicked;

/// Awaits work, and catches its panic.
pub(super) async fn caught<T>(work: impl Future<Output = Result<T, Error>>) -> Caught<T> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| Panicked)
}

/// Logs the failures of work that is repeated until it succeeds.
pub(super) struct FailureLog {
    message: &'static str,
    is_failing: bool,
}

impl FailureLog {
    /// `message` is logged with the error.
    pub(super) fn new(message: &'static str) -> Self {
        Self { message, is_failing: false }
    }

    /// Logs a panic, and an error that follows a success. Returns whether the work failed.
    pub(super) fn record<T>(&mut self, outcome: Caught<T>) -> bool {
        self.value(outcome).is_none()
    }

    /// Like [`record`](Self::record), but returns the value of work that succeeded.
    pub(super) fn value<T>(&mut self, outcome: Caught<T>) -> Option<T> {
        let was_failing = std::mem::replace(&mut self.is_failing, !matches!(outcome, Ok(Ok(_))));
        match outcome {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) if !was_failing => {
                tracing::warn!(error = &error as &dyn std::error::Error, "{}", self.message);
            }
            Ok(Err(_)) => {}
            Err(Panicked) => tracing::error!(work = self.message, "panicked in the keeper"),
        }
        None
    }
}
