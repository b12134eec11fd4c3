//! Work that continues if its caller is dropped.

use tracing::Instrument;

use crate::Error;

/// Completes `work` in its own task, even if the caller is dropped, as an HTTP handler is when its
/// client resets the connection. A panic continues in the caller.
///
/// # Errors
/// Returns the error of `work`, or [`Error::ShuttingDown`] if the runtime shuts down.
pub(crate) fn complete<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> + Send {
    // Spawned before the returned future is awaited, so that the future of the caller does not contain
    // `work`, which may be large.
    let task = tokio::spawn(work.in_current_span());
    async {
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::ShuttingDown),
            },
        }
    }
}
