//! The bounded wait for a condition, the only place where a test may sleep.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Looks again and again until `look` finds something, and fails naming `what` when that took
/// longer than `timeout`.
///
/// An error of `look` means "not yet"; the last one is part of the failure's message.
///
/// # Errors
/// When nothing was found in time.
pub async fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last_error = None;
    while Instant::now() < deadline {
        match timeout_at(deadline, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => last_error = None,
            Ok(Err(error)) => last_error = Some(error),
            Err(_) => break,
        }
        sleep(BETWEEN_LOOKS).await;
    }
    match last_error {
        Some(error) => bail!("waited {timeout:?} for {what} in vain: {error:#}"),
        None => bail!("waited {timeout:?} for {what} in vain"),
    }
}

/// Lets time pass in which a fault would show.
///
/// # Errors
/// When the machine is so busy that it takes five seconds more.
pub async fn pass(time: Duration) -> Result<()> {
    let begun = Instant::now();
    wait_until("time to pass", time + Duration::from_secs(5), || async {
        Ok((begun.elapsed() >= time).then_some(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[tokio::test]
    async fn what_is_found_at_a_later_look_is_returned() {
        let mut looks = 0;
        let found = wait_until("three looks", Duration::from_secs(5), || {
            looks += 1;
            let found = (looks == 3).then_some(looks);
            async move { Ok(found) }
        });
        assert_eq!(found.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_wait_in_vain_says_what_for_and_why() {
        let waited: Result<()> =
            wait_until("rain", Duration::from_millis(120), || async { Err(anyhow!("clear sky")) })
                .await;
        let message = waited.unwrap_err().to_string();
        assert!(message.contains("rain") && message.contains("clear sky"), "{message}");
    }
}
