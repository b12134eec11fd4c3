//! Work that continues if its caller is dropped.

use tracing::Instrument;

use crate::Error;

/// Completes `work` in its own task, even if the caller is dropped, as an HTTP handler is when its
/// client resets the connection. A panic continues in the caller.
///
/// # Errors
/// Returns the error of `work`, or [`Error::ShuttingDown`] if the runtime shuts down.
pub(crate) async fn complete<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::ShuttingDown),
        },
    }
}
