//! Idempotency keys: the same key and the same request are the same session.

use greenroom_domain::{Caller, SessionStatus};
use greenroom_store::{KeyClaim, KeyKind, NewSession, StartedRow, TokenReissue};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::start::StartRequest;
use crate::{Error, Greenroom};

/// What has become of a key that stood in the way of a new session.
pub(crate) enum Replay {
    /// It is this session's, which lives.
    Started(Box<StartedRow>),
    /// It was forgotten, and is free again.
    Free,
    /// It stood in nobody's way.
    Unused,
}

/// The key of a request, as it is stored: hashed, with whom it is scoped to, so that no user reaches
/// another's session by guessing, and beside it what the request asks for. An end user who sends none
/// has one all the same: what they ask for.
pub(crate) fn claim(caller: &Caller, request: &StartRequest) -> Option<KeyClaim> {
    let fingerprint = fingerprint(request);
    let user = caller.end_user.as_ref().map(|user| user.as_str().as_bytes());
    let (kind, hash) = match &request.idempotency_key {
        Some(key) => {
            let key = key.as_str().as_bytes();
            (KeyKind::Explicit, digest(&[Some(b"key"), user, Some(key)]))
        }
        None => (KeyKind::Implicit, digest(&[Some(b"refetch"), Some(user?), Some(&fingerprint)])),
    };
    Some(KeyClaim { kind, hash, fingerprint })
}

/// What a request asks for, however it is written.
fn fingerprint(request: &StartRequest) -> [u8; 32] {
    let metadata = request.metadata.as_ref().map(ToString::to_string);
    let attributes = request.participant_attributes.as_ref().map(ToString::to_string);
    digest(&[
        Some(request.session_template_id.0.as_bytes()),
        request.user_id.as_ref().map(|user| user.as_str().as_bytes()),
        metadata.as_ref().map(String::as_bytes),
        request.participant_name.as_ref().map(|name| name.as_str().as_bytes()),
        attributes.as_ref().map(String::as_bytes),
        request.agent_name.as_ref().map(|agent| agent.as_str().as_bytes()),
    ])
}

/// A hash over parts of which each is there or not, and that cannot be told apart differently.
fn digest(parts: &[Option<&[u8]>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        match part {
            Some(bytes) => {
                hash.update([1]);
                hash.update(bytes.len().to_be_bytes());
                hash.update(bytes);
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
        if key.kind == KeyKind::Implicit {
            return Ok(Replay::Unused);
        }
        let organization = new.organization_id;
        let database = &self.shared.database;
        let renew =
            async |db: &mut _| TokenReissue::Key(key).execute(db, organization, new.token).await;
        if let Some(started) = database.run_until(deadline, renew).await? {
            return Ok(Replay::Started(Box::new(started)));
        }
        let forget = async |db: &mut _| key.release_if_expired(db, organization).await;
        if database.run_until(deadline, forget).await? {
            return Ok(Replay::Free);
        }
        let holder = async |db: &mut _| key.find_holder(db, organization).await;
        let Some(holder) = database.run_until(deadline, holder).await? else {
            return Ok(Replay::Unused);
        };
        if holder.fingerprint.as_deref() != Some(key.fingerprint.as_slice()) {
            return Err(Error::IdempotencyKeyReused);
        }
        if !SessionStatus::OPEN.contains(&holder.status) {
            return Err(Error::SessionOver(holder.id));
        }
        // It came into being between the two questions: asked again, it is there.
        Ok(Replay::Free)
    }
}

#[cfg(test)]
mod tests {
    use greenroom_domain::{IdempotencyKey, OrganizationId, SessionTemplateId, UserId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_end_users_request_is_its_own_key_and_a_backends_is_none() {
        let user = |name: &str| UserId::try_from(name.to_owned()).unwrap();
        let organization = OrganizationId(Uuid::from_u128(1));
        let (ann, ben) = (user("ann"), user("ben"));
        let request = |user: &UserId| StartRequest {
            user_id: Some(user.clone()),
            ..StartRequest::new(SessionTemplateId(Uuid::from_u128(2)))
        };
        let as_ann = Caller::end_user(organization, ann.clone());
        let anns = claim(&as_ann, &request(&ann)).unwrap();
        assert_eq!(anns.kind, KeyKind::Implicit);
        assert_eq!(claim(&as_ann, &request(&ann)), Some(anns));
        let bens = claim(&Caller::end_user(organization, ben.clone()), &request(&ben)).unwrap();
        assert_ne!(anns.hash, bens.hash);
        let other = SessionTemplateId(Uuid::from_u128(3));
        let other = StartRequest { session_template_id: other, ..request(&ann) };
        assert_ne!(anns.hash, claim(&as_ann, &other).unwrap().hash);
        assert_eq!(claim(&Caller::backend(organization), &request(&ann)), None);
        let key = Some(IdempotencyKey::try_from("k".to_owned()).unwrap());
        let sent = claim(&as_ann, &StartRequest { idempotency_key: key, ..request(&ann) }).unwrap();
        assert_eq!((sent.kind, sent.fingerprint), (KeyKind::Explicit, anns.fingerprint));
        assert_ne!(sent.hash, anns.hash);
    }

    #[test]
    fn parts_cannot_be_told_apart_differently() {
        let all = [
            digest(&[Some(b"key"), None, Some(b"ab")]),
            digest(&[Some(b"key"), Some(b"a"), Some(b"b")]),
            digest(&[Some(b"key"), Some(b"ab"), None]),
            digest(&[Some(b"key"), Some(b""), Some(b"ab")]),
            digest(&[Some(b"keya"), None, Some(b"b")]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one), "{n}");
        }
    }
}
