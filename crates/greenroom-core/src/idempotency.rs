//! Idempotency keys: the same key and the same request are the same session.

use greenroom_domain::{AgentName, Caller, ParticipantName, SessionStatus, UserId};
use greenroom_store::{KeyClaim, NewSession, Renewed, Started};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::start::StartRequest;
use crate::{Error, Greenroom};

/// What has become of a key that stood in the way of a new session.
pub(crate) enum Replay {
    /// It is this session's, which lives.
    Started(Box<Started>),
    /// It was forgotten, and is free again.
    Free,
    /// It stood in nobody's way.
    Unused,
}

/// The key of a request, as it is stored: hashed, with whom it is scoped to, so that no user reaches
/// another's session by guessing, and beside it what the request asks for.
pub(crate) fn claim(caller: &Caller, request: &StartRequest) -> Option<KeyClaim> {
    let key = request.idempotency_key.as_ref()?;
    let user = caller.end_user.as_ref().map(UserId::as_str);
    let hash = digest(&[Some("key"), user, Some(key.as_str())]);
    let fingerprint = fingerprint(request);
    Some(KeyClaim { hash, fingerprint })
}

/// What a request asks for, however it is written.
fn fingerprint(request: &StartRequest) -> [u8; 32] {
    let metadata = request.metadata.as_ref().map(ToString::to_string);
    let attributes = request.participant_attributes.as_ref().map(ToString::to_string);
    digest(&[
        Some(&request.session_template_id.to_string()),
        request.user_id.as_ref().map(UserId::as_str),
        metadata.as_deref(),
        request.participant_name.as_ref().map(ParticipantName::as_str),
        attributes.as_deref(),
        request.agent_name.as_ref().map(AgentName::as_str),
    ])
}

/// A hash over parts of which each is there or not, and that cannot be told apart differently.
fn digest(parts: &[Option<&str>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        match part {
            Some(text) => {
                hash.update([1]);
                hash.update(text.len().to_be_bytes());
                hash.update(text);
            }
            None => hash.update([0]),
        }
    }
    hash.finalize().into()
}

impl Greenroom {
    /// The session of this key, with a token of its own, when the request is the same.
    pub(crate) async fn replay(
        &self,
        new: &NewSession,
        key: &KeyClaim,
        deadline: Instant,
    ) -> Result<Replay, Error> {
        let organization = new.organization_id;
        let database = &self.shared.database;
        let renew = async |db: &mut _| Renewed::Key(key).renew(db, organization, new.token).await;
        if let Some(started) = database.run_until(deadline, renew).await? {
            return Ok(Replay::Started(Box::new(started)));
        }
        let forget = async |db: &mut _| key.forget_if_old(db, organization).await;
        if database.run_until(deadline, forget).await? {
            return Ok(Replay::Free);
        }
        let holder = async |db: &mut _| key.holder(db, organization).await;
        let Some(holder) = database.run_until(deadline, holder).await? else {
            return Ok(Replay::Unused);
        };
        if holder.fingerprint.as_deref() != Some(key.fingerprint.as_slice()) {
            return Err(Error::IdempotencyKeyReused);
        }
        if !SessionStatus::LIVING.contains(&holder.status) {
            return Err(Error::SessionOver(holder.id));
        }
        // It came into being between the two questions: asked again, it is there.
        Ok(Replay::Free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_told_apart_differently() {
        let all = [
            digest(&[Some("key"), None, Some("ab")]),
            digest(&[Some("key"), Some("a"), Some("b")]),
            digest(&[Some("key"), Some("ab"), None]),
            digest(&[Some("key"), Some(""), Some("ab")]),
            digest(&[Some("keya"), None, Some("b")]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one), "{n}");
        }
    }
}
