//! Starts with the same key: the first writes its session, and the others take over the result.

use std::collections::HashMap;
use std::sync::Arc;

use greenroom_domain::OrganizationId;
use greenroom_store::KeyClaim;
use parking_lot::Mutex;
use tokio::sync::watch;

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

/// What a start with a key does next.
pub(super) enum Turn<'a> {
    /// Write the session, and publish the result.
    First(FirstStart<'a>),
    /// Wait for the result of the start in progress.
    After(EarlierStart),
}

/// A start whose key no other start in progress has. Dropping it lets the next start continue.
pub(super) struct FirstStart<'a> {
    starts: &'a KeyedStarts,
    key: Key,
    claim: KeyClaim,
    publisher: watch::Sender<Option<Arc<Published>>>,
}

/// Another start that is in progress.
pub(super) struct EarlierStart(Receiver);

impl KeyedStarts {
    pub(super) fn enter(&self, organization: OrganizationId, claim: KeyClaim) -> Turn<'_> {
        let key = (organization, claim.hash);
        let mut starts = self.0.lock();
        if let Some(earlier) = starts.get(&key) {
            return Turn::After(EarlierStart(earlier.clone()));
        }
        let (publisher, receiver) = watch::channel(None);
        starts.insert(key, receiver);
        Turn::First(FirstStart { starts: self, key, claim, publisher })
    }
}

impl FirstStart<'_> {
    pub(super) fn publish(self, result: &Result<WrittenSession, Error>) {
        // The map has one receiver. Without others, nobody waits for a copy.
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

impl EarlierStart {
    /// Waits until the start is finished. Returns its result, or `None` if it says nothing about a
    /// start with this `claim`.
    pub(super) async fn result(mut self, claim: KeyClaim) -> Option<Result<WrittenSession, Error>> {
        let published = self.0.wait_for(Option::is_some).await.ok()?;
        let published = published.as_ref().filter(|published| published.claim == claim)?;
        for_repeated_request(&published.result)
    }
}

/// The result that a repeated request has. `None` means that it may have another one.
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
    Some(Err(match *error {
        Error::TemplateNotFound(id) => Error::TemplateNotFound(id),
        Error::TemplateForbidden(id) => Error::TemplateForbidden(id),
        Error::TemplateUnusable(id) => Error::TemplateUnusable(id),
        Error::AgentMismatch => Error::AgentMismatch,
        Error::TokenTooLong => Error::TokenTooLong,
        Error::SessionOver(id) => Error::SessionOver(id),
        Error::IdempotencyKeyReused => Error::IdempotencyKeyReused,
        Error::TooManyActiveSessions { limit } => Error::TooManyActiveSessions { limit },
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use greenroom_domain::SessionId;
    use greenroom_store::Fingerprint;
    use uuid::Uuid;

    use super::*;

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::nil());

    fn claim(request: u8) -> KeyClaim {
        KeyClaim { hash: [0; 32], fingerprint: Fingerprint::new(1, [request; 32]) }
    }

    fn first(starts: &KeyedStarts, request: u8) -> FirstStart<'_> {
        let Turn::First(first) = starts.enter(ORGANIZATION, claim(request)) else { panic!() };
        first
    }

    fn after(starts: &KeyedStarts, request: u8) -> EarlierStart {
        let Turn::After(earlier) = starts.enter(ORGANIZATION, claim(request)) else { panic!() };
        earlier
    }

    #[tokio::test]
    async fn repeated_request_takes_over_what_applies_to_it() {
        let over = || Error::SessionOver(SessionId(Uuid::nil()));
        for (error, request, is_taken_over) in [
            (over(), 1, true),
            (over(), 2, false),
            (Error::Overloaded, 1, false),
            (Error::ShuttingDown, 1, false),
        ] {
            let starts = KeyedStarts::default();
            let first_start = first(&starts, 1);
            let earlier = after(&starts, request);
            first_start.publish(&Err(error));
            let result = earlier.result(claim(request)).await;
            assert_eq!(matches!(result, Some(Err(Error::SessionOver(_)))), is_taken_over);
            assert_eq!(result.is_some(), is_taken_over);
            drop(first(&starts, 2));
        }
    }

    #[tokio::test]
    async fn only_starts_with_the_same_key_wait() {
        let starts = KeyedStarts::default();
        let first = first(&starts, 1);
        let other_key = KeyClaim { hash: [1; 32], ..claim(1) };
        let other_organization = OrganizationId(Uuid::from_u128(1));
        assert!(matches!(starts.enter(ORGANIZATION, other_key), Turn::First(_)));
        assert!(matches!(starts.enter(other_organization, claim(1)), Turn::First(_)));
        let earlier = after(&starts, 1);
        drop(first);
        assert!(earlier.result(claim(1)).await.is_none());
    }
}
