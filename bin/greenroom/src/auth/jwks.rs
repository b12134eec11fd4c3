//! The keys that an identity provider publishes as a JWK set (RFC 7517), and when they are fetched.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use reqwest::{Client, Response, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::key::Key;

/// Minimum interval between fetches, so that made-up key ids cannot flood the identity provider.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum duration of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);

/// Maximum size of a key set, in bytes.
const MAX_SET_BYTES: usize = 64 * 1024;

/// The keys of an identity provider, as last fetched. Clones share the keys.
#[derive(Clone)]
pub struct Jwks {
    shared: Arc<Shared>,
}

struct Shared {
    url: Url,
    client: Client,
    keys: RwLock<Vec<PublishedKey>>,
    /// When the last fetch started. The lock is held during a fetch, so that fetches never overlap.
    last_fetch: Mutex<Option<Instant>>,
}

/// A key of the set.
struct PublishedKey {
    /// The `kid`.
    id: Option<String>,
    algorithm: Algorithm,
    key: Arc<Key>,
}

/// A JWK set. The keys are parsed one by one, so that an invalid key does not affect the others.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Jwks {
    /// Creates an empty set. No key is fetched yet.
    ///
    /// # Errors
    /// Returns an error if the HTTP client cannot be created.
    pub fn new(url: Url) -> reqwest::Result<Self> {
        // The client trusts the system's certificates, because identity providers often have
        // certificates from a private authority.
        let client =
            Client::builder().timeout(FETCH_TIMEOUT).redirect(redirect::Policy::none()).build()?;
        let (keys, last_fetch) = (RwLock::default(), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { url, client, keys, last_fetch }) })
    }

    /// Returns the key with this id and algorithm, or without an id the only key with this
    /// algorithm. Fetches the set if no such key is known.
    pub async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        if let Some(key) = self.shared.find(id, algorithm) {
            return Some(key);
        }
        self.fetch_if_due().await;
        self.shared.find(id, algorithm)
    }

    /// Fetches the set after the key `tried` did not verify a signature, because the identity
    /// provider may have replaced the key under the same id. `None` means that the set has not been
    /// fetched again since `tried` was found, or that no key has this id and algorithm any more.
    pub async fn replaced_key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        tried: &Arc<Key>,
    ) -> Option<Arc<Key>> {
        self.fetch_if_due().await;
        self.shared.find(id, algorithm).filter(|key| !Arc::ptr_eq(key, tried))
    }

    /// Fetches the set when the process starts.
    ///
    /// # Errors
    /// Returns why the fetch failed. A token that arrives at least 30 s later causes another fetch.
    pub async fn fetch_at_startup(&self) -> Result<(), String> {
        let mut last_fetch = self.shared.last_fetch.lock().await;
        *last_fetch = Some(Instant::now());
        self.shared.fetch().await
    }

    /// Fetches the set, unless the last fetch started less than [`MIN_FETCH_INTERVAL`] ago.
    async fn fetch_if_due(&self) {
        let requested_at = Instant::now();
        let shared = self.shared.clone();
        // Runs in its own task: actix-web drops a handler when its client disconnects, but this
        // fetch is the only one in 30 seconds and serves all callers.
        let fetch = async move {
            let mut last_fetch = shared.last_fetch.lock().await;
            if !may_fetch(*last_fetch, requested_at) {
                return;
            }
            *last_fetch = Some(Instant::now());
            // The last set stays in use.
            if let Err(error) = shared.fetch().await {
                tracing::warn!(error, "failed to fetch the callers' keys");
            }
        };
        // The task does not panic, and only the end of the process cancels it.
        let _ = tokio::spawn(fetch).await;
    }
}

impl Shared {
    async fn fetch(&self) -> Result<(), String> {
        let response = self.client.get(self.url.clone()).send().await.map_err(|e| describe(&e))?;
        if !response.status().is_success() {
            return Err(format!("AUTH_JWKS_URL returned {}", response.status()));
        }
        let body = read(response).await?;
        let set: KeySet = serde_json::from_slice(&body)
            .map_err(|_| "the response of AUTH_JWKS_URL is not a JWK set".to_owned())?;
        let keys: Vec<_> = set.keys.iter().filter_map(parse_key).collect();
        if keys.is_empty() {
            let algorithms = "RS256, ES256 or EdDSA";
            return Err(format!("the set of AUTH_JWKS_URL has no public key for {algorithms}"));
        }
        *self.keys.write() = keys;
        Ok(())
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let keys = self.keys.read();
        let is_match = |key: &&PublishedKey| {
            key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id)
        };
        let mut matches = keys.iter().filter(is_match);
        let first = matches.next()?;
        // Several matches are ambiguous without a `kid`.
        (id.is_some() || matches.next().is_none()).then(|| first.key.clone())
    }
}

fn may_fetch(last: Option<Instant>, requested_at: Instant) -> bool {
    last.is_none_or(|last| requested_at.saturating_duration_since(last) >= MIN_FETCH_INTERVAL)
}

/// Parses a public key that verifies signatures with RS256, ES256 or `EdDSA`. Returns `None` for
/// any other key, such as a symmetric key that was published by mistake.
fn parse_key(jwk: &Value) -> Option<PublishedKey> {
    let declared = jwk.get("alg").map(|name| name.as_str().unwrap_or_default().to_owned());
    let jwk: Jwk = serde_json::from_value(jwk.clone()).ok()?;
    let (algorithm, names): (_, &[&str]) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, &["RS256"]),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, &["ES256"])
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            // RFC 9864 names the same algorithm `Ed25519`.
            (Algorithm::EdDSA, &["EdDSA", "Ed25519"])
        }
        _ => return None,
    };
    let common = &jwk.common;
    let verifies = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        && common.key_operations.as_ref().is_none_or(verifies);
    let is_consistent = declared.is_none_or(|name| names.contains(&name.as_str()));
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| is_for_signatures && is_consistent)?;
    let key = Arc::new(Key::new(key, algorithm));
    Some(PublishedKey { id: common.key_id.clone(), algorithm, key })
}

/// Reads a body of at most [`MAX_SET_BYTES`].
async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        if body.len() + chunk.len() > MAX_SET_BYTES {
            return Err("the response of AUTH_JWKS_URL is larger than 64 KiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Describes an error without the URL, because the URL may contain a secret.
fn describe(error: &reqwest::Error) -> String {
    let problem = if error.is_timeout() {
        "did not respond in time"
    } else if error.is_connect() {
        "cannot be reached"
    } else {
        "sent an incomplete or invalid response"
    };
    format!("AUTH_JWKS_URL {problem}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_are_thirty_seconds_apart() {
        let now = Instant::now();
        assert!(may_fetch(None, now));
        assert!(!may_fetch(Some(now), now + Duration::from_millis(29_999)));
        assert!(may_fetch(Some(now), now + MIN_FETCH_INTERVAL));
        let later = Some(now + MIN_FETCH_INTERVAL);
        assert!(!may_fetch(later, now), "requested before the last fetch started");
    }

    #[test]
    fn only_public_keys_for_signatures_are_used() {
        let ed =
            r#""kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let is_usable = |jwk: &str| parse_key(&serde_json::from_str(jwk).unwrap()).is_some();
        assert!(is_usable(&format!("{{{ed}}}")));
        assert!(is_usable(&format!(r#"{{{ed}, "use": "sig", "alg": "EdDSA", "kid": "1"}}"#)));
        assert!(is_usable(&format!(r#"{{{ed}, "alg": "Ed25519", "key_ops": ["verify"]}}"#)));
        for wrong in [
            r#""use": "enc""#,
            r#""alg": "RS256""#,
            r#""alg": 7"#,
            r#""key_ops": ["encrypt"]"#,
            r#""kid": 7"#,
        ] {
            assert!(!is_usable(&format!("{{{ed}, {wrong}}}")), "{wrong}");
        }
        assert!(!is_usable(r#"{"kty": "oct", "k": "c2VjcmV0"}"#));
        assert!(!is_usable(r#"{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}"#));
        assert!(!is_usable("7"));
    }
}
