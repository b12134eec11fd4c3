//! The idempotency key of a start, and the fingerprint of its request.

use greenroom_domain::Caller;
use greenroom_store::{Fingerprint, KeyClaim, StartKey};
use sha2::{Digest, Sha256};

use super::request::StartRequest;

/// Version of [`request_digest`]. Increment it with each change of the digest, so that a retry with a
/// key survives a rolling update.
const FINGERPRINT_VERSION: u8 = 1;

/// Returns the hashed key of a request and the request's fingerprint, or [`StartKey::None`] for a
/// backend without a key.
///
/// The hash of a key that an end user sent includes the user, so that no user reaches the session
/// of another user by guessing a key. A repeated request with the key is a replay. An end user who
/// sends no key gets an implicit key, the hash of the request and the user, with which a repeated
/// request resumes the session.
pub(super) fn start_key(caller: &Caller, request: &StartRequest) -> StartKey {
    let request_digest = request_digest(request);
    let fingerprint = Fingerprint::new(FINGERPRINT_VERSION, request_digest);
    let user = caller.end_user.as_ref().map(|user| user.as_str().as_bytes());
    // The prefixes separate the two kinds of key. `refetch` marks implicit keys. Changing a prefix
    // orphans the hashes in the database.
    match (&request.idempotency_key, user) {
        (Some(key), user) => {
            let hash = digest(&[Some(b"key"), user, Some(key.as_str().as_bytes())]);
            StartKey::Explicit(KeyClaim { hash, fingerprint })
        }
        (None, Some(user)) => {
            let hash = digest(&[Some(b"refetch"), Some(user), Some(&request_digest)]);
            StartKey::Implicit(KeyClaim { hash, fingerprint })
        }
        (None, None) => StartKey::None,
    }
}

/// Hashes the fields of a request except its idempotency key. JSON formatting and key order do not
/// matter. A change of the result needs another [`FINGERPRINT_VERSION`], and orphans implicit keys.
fn request_digest(request: &StartRequest) -> [u8; 32] {
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

/// Hashes a list of optional parts. Each part is preceded by a presence byte and its length, so
/// that two different lists never have the same input.
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

#[cfg(test)]
mod tests {
    use greenroom_domain::{IdempotencyKey, OrganizationId, SessionTemplateId, UserId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn end_user_request_without_key_has_implicit_key() {
        let user = |name: &str| UserId::try_from(name.to_owned()).unwrap();
        let organization = OrganizationId(Uuid::from_u128(1));
        let (ann, ben) = (user("ann"), user("ben"));
        let request = |user: &UserId| StartRequest {
            user_id: Some(user.clone()),
            ..StartRequest::new(SessionTemplateId(Uuid::from_u128(2)))
        };
        let as_ann = Caller::end_user(organization, ann.clone());
        let implicit = |caller: &Caller, request: &StartRequest| match start_key(caller, request) {
            StartKey::Implicit(claim) => claim,
            other => panic!("{other:?}"),
        };
        let anns = implicit(&as_ann, &request(&ann));
        assert_eq!(implicit(&as_ann, &request(&ann)), anns);
        let bens = implicit(&Caller::end_user(organization, ben.clone()), &request(&ben));
        assert_ne!(anns.hash, bens.hash);
        let other = SessionTemplateId(Uuid::from_u128(3));
        let other = StartRequest { session_template_id: other, ..request(&ann) };
        assert_ne!(anns.hash, implicit(&as_ann, &other).hash);
        assert_eq!(start_key(&Caller::backend(organization), &request(&ann)), StartKey::None);
        let key = Some(IdempotencyKey::try_from("k".to_owned()).unwrap());
        let explicit = StartRequest { idempotency_key: key, ..request(&ann) };
        let StartKey::Explicit(sent) = start_key(&as_ann, &explicit) else {
            panic!("{explicit:?}")
        };
        assert_eq!(sent.fingerprint, anns.fingerprint);
        assert_ne!(sent.hash, anns.hash);
    }

    #[test]
    fn different_part_lists_have_different_digests() {
        let digests = [
            digest(&[Some(b"key"), None, Some(b"ab")]),
            digest(&[Some(b"key"), Some(b"a"), Some(b"b")]),
            digest(&[Some(b"key"), Some(b"ab"), None]),
            digest(&[Some(b"key"), Some(b""), Some(b"ab")]),
            digest(&[Some(b"keya"), None, Some(b"b")]),
        ];
        for (index, digest) in digests.iter().enumerate() {
            assert!(digests[index + 1..].iter().all(|other| other != digest), "{index}");
        }
    }
}
