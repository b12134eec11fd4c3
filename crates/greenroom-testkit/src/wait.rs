//! Bounded waiting for a condition. Tests sleep only through this file.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Calls `poll`, with 50 ms between the calls, until it returns `Some`, and returns that value.
///
/// An error from `poll` counts as "not yet". The message of a timeout contains `what` and the
/// error of the last poll.
///
/// # Errors
/// Returns an error if `poll` has returned no value within `timeout`.
pub async fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut poll: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last_error = None;
    while Instant::now() < deadline {
        match timeout_at(deadline, poll()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last_error = None,
            Ok(Err(error)) => last_error = Some(error),
            Err(_) => break,
        }
        sleep(POLL_INTERVAL).await;
    }
    match last_error {
        Some(error) => bail!("timed out after {timeout:?} waiting for {what}: {error:#}"),
        None => bail!("timed out after {timeout:?} waiting for {what}"),
    }
}

/// Sleeps for `duration`. Tests use this to give a fault time to show.
///
/// # Errors
/// Returns an error if the sleep takes five seconds longer, because the machine is too busy.
pub async fn sleep_for(duration: Duration) -> Result<()> {
    let started = Instant::now();
    wait_until("time to pass", duration + Duration::from_secs(5), || async {
        Ok((started.elapsed() >= duration).then_some(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn value_of_later_poll_is_returned() {
        let mut polls = 0;
        let value = wait_until("three polls", Duration::from_secs(5), || {
            polls += 1;
            let value = (polls == 3).then_some(polls);
            async move { Ok(value) }
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn timeout_message_contains_condition_and_last_error() {
        let result: Result<()> =
            wait_until("rain", Duration::from_millis(120), || async { Err(anyhow!("clear sky")) })
                .await;
        let message = result.unwrap_err().to_string();
        assert!(message.contains("rain") && message.contains("clear sky"), "{message}");
    }
}
