//! Starts with the same key: the first writes its session and opens its room, and the others take over
//! the result.

use std::collections::HashMap;
use std::sync::Arc;

use greenroom_domain::OrganizationId;
use greenroom_store::KeyClaim;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::write::WrittenSession;
use crate::Error;

/// The starts with a key that are in progress in this process. No two have the same key, so retries of a
/// start wait without a connection.
#[derive(Default)]
pub(crate) struct KeyedStarts(Mutex<HashMap<Key, Receiver>>);

/// A key is unique within its organization.
type Key = (OrganizationId, [u8; 32]);

/// `None` until the result is known.
type Receiver = watch::Receiver<Option<Arc<Published>>>;

/// The result of a start, for others with the same request.
struct Published {
    claim: KeyClaim,
    result: Result<WrittenSession, Error>,
}

/// What a start with a key has waited for.
pub(super) enum Turn<'a> {
    /// No other start with the key is in progress. The start must run and publish its result.
    First(FirstStart<'a>),
    /// A start with the same request had this result.
    Repeated(Box<WrittenSession>),
}

/// The only start in progress with its key. Dropping it removes the key, so that one of the starts that
/// wait for it can become the first.
pub(super) struct FirstStart<'a> {
    starts: &'a KeyedStarts,
    key: Key,
    claim: KeyClaim,
    publisher: watch::Sender<Option<Arc<Published>>>,
}

impl KeyedStarts {
    /// Waits until no other start with the key is in progress, or one with the same request has finished.
    ///
    /// # Errors
    /// Returns the error of that start, and [`Error::Overloaded`] if none has finished at `until`.
    pub(super) async fn wait_for_turn(
        &self,
        organization: OrganizationId,
        claim: KeyClaim,
        until: Instant,
    ) -> Result<Turn<'_>, Error> {
        loop {
            let earlier = match self.enter(organization, claim) {
                Ok(first) => return Ok(Turn::First(first)),
                Err(earlier) => earlier,
            };
            let result = timeout_at(until, result_for(claim, earlier)).await;
            if let Some(result) = result.map_err(|_| Error::Overloaded)? {
                return result.map(|written| Turn::Repeated(Box::new(written)));
            }
        }
    }

    /// Returns the start in progress as an error, if there is one.
    fn enter(
        &self,
        organization: OrganizationId,
        claim: KeyClaim,
    ) -> Result<FirstStart<'_>, Receiver> {
        let key = (organization, claim.hash);
        let mut starts = self.0.lock();
        if let Some(earlier) = starts.get(&key) {
            return Err(earlier.clone());
        }
        let (publisher, receiver) = watch::channel(None);
        starts.insert(key, receiver);
        Ok(FirstStart { starts: self, key, claim, publisher })
    }
}

impl FirstStart<'_> {
    pub(super) fn publish(self, result: &Result<WrittenSession, Error>) {
        // The map holds one receiver. If there is no other, no start waits for the result.
        if self.publisher.receiver_count() > 1
            && let Some(result) = for_repeated_request(result)
        {
            self.publisher.send_replace(Some(Arc::new(Published { claim: self.claim, result })));
        }
    }
}

impl Drop for FirstStart<'_> {
    fn drop(&mut self) {
        self.starts.0.lock().remove(&self.key);
    }
}

/// Waits until a start is finished, and returns its result. `None` means that the result does not apply
/// to a start with this `claim`, or that the start was dropped without one.
async fn result_for(
    claim: KeyClaim,
    mut earlier: Receiver,
) -> Option<Result<WrittenSession, Error>> {
    let published = earlier.wait_for(Option::is_some).await.ok()?;
    let published = published.as_ref().filter(|published| published.claim == claim)?;
    for_repeated_request(&published.result)
}

/// Returns the result for a repetition of the same request. `None` means that a repetition may have a
/// different result, so it must run itself.
fn for_repeated_request(
    result: &Result<WrittenSession, Error>,
) -> Option<Result<WrittenSession, Error>> {
    let error = match result {
        Ok(written) => {
            // Each start signs its own token.
            let access_token = None;
            return Some(Ok(WrittenSession { access_token, is_replay: true, ..written.clone() }));
        }
        Err(error) => error,
    };
    Some(Err(match error {
        Error::TemplateNotFound(id) => Error::TemplateNotFound(*id),
        Error::TemplateForbidden(id) => Error::TemplateForbidden(*id),
        Error::TemplateUnusable(id) => Error::TemplateUnusable(*id),
        Error::AgentMismatch => Error::AgentMismatch,
        Error::TokenTooLong => Error::TokenTooLong,
        Error::SessionOver(id) => Error::SessionOver(*id),
        Error::IdempotencyKeyReused => Error::IdempotencyKeyReused,
        Error::TooManyActiveSessions { limit } => Error::TooManyActiveSessions { limit: *limit },
        Error::LiveKit(error) => Error::LiveKit(error.clone()),
        // If the repetitions tried again, one after the other, each would wait for the same cause.
        Error::Store(error) => Error::Store(error.for_other_caller()),
        Error::Overloaded => Error::Overloaded,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use greenroom_domain::SessionId;
    use greenroom_store::Fingerprint;
    use uuid::Uuid;

    use super::*;

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::nil());

    fn claim(request: u8) -> KeyClaim {
        KeyClaim { hash: [0; 32], fingerprint: Fingerprint::new(1, [request; 32]) }
    }

    async fn turn(starts: &KeyedStarts, claim: KeyClaim) -> Result<Turn<'_>, Error> {
        let until = Instant::now() + Duration::from_secs(1);
        starts.wait_for_turn(ORGANIZATION, claim, until).await
    }

    #[tokio::test]
    async fn repeated_request_takes_over_what_applies_to_it() {
        let over = || Error::SessionOver(SessionId(Uuid::nil()));
        for (error, request, is_taken_over) in
            [(over(), 1, true), (over(), 2, false), (Error::ShuttingDown, 1, false)]
        {
            let starts = KeyedStarts::default();
            let Ok(Turn::First(first)) = turn(&starts, claim(1)).await else { panic!() };
            let publish = async { first.publish(&Err(error)) };
            match tokio::join!(turn(&starts, claim(request)), publish).0 {
                Ok(Turn::First(_)) => assert!(!is_taken_over),
                Err(Error::SessionOver(_)) => assert!(is_taken_over),
                _ => panic!("request {request}"),
            }
            assert!(matches!(turn(&starts, claim(3)).await, Ok(Turn::First(_))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_starts_with_the_same_key_wait() {
        let starts = KeyedStarts::default();
        let first = turn(&starts, claim(1)).await;
        let other_key = KeyClaim { hash: [1; 32], ..claim(1) };
        assert!(matches!(turn(&starts, other_key).await, Ok(Turn::First(_))));
        let other_organization = OrganizationId(Uuid::from_u128(1));
        assert!(starts.enter(other_organization, claim(1)).is_ok());
        assert!(matches!(turn(&starts, claim(1)).await, Err(Error::Overloaded)));
        drop(first);
        assert!(matches!(turn(&starts, claim(1)).await, Ok(Turn::First(_))));
    }
}
