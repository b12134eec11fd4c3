//! The keys an identity system publishes (RFC 7517), fetched when a token needs one we have not seen.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Client, Response, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::key::Key;

/// The least time between two fetches: whoever makes up key ids costs the identity system no more
/// than this.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);

/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);

/// The largest set, in bytes.
const SET_BYTES: usize = 64 * 1024;

/// The keys of an identity system, as it last published them. Clones share them.
#[derive(Clone)]
pub struct Jwks {
    shared: Arc<Shared>,
}

struct Shared {
    url: Url,
    client: Client,
    keys: RwLock<Vec<Published>>,
    /// When the last fetch began. Held while one is under way, so that there is one at a time.
    fetched: Mutex<Option<Instant>>,
}

/// One key of the set.
struct Published {
    id: Option<String>,
    algorithm: Algorithm,
    key: Arc<Key>,
}

/// What a set is at least; each key is read by itself, so that one that makes no sense spoils none.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Jwks {
    /// The keys at this address, none of them fetched yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(url: Url) -> reqwest::Result<Self> {
        // The system's own certificates, for identity systems are often private.
        let client =
            Client::builder().timeout(FETCH_TIMEOUT).redirect(redirect::Policy::none()).build()?;
        let (keys, fetched) = (RwLock::default(), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { url, client, keys, fetched }) })
    }

    /// The key of this id for tokens of this algorithm; without an id the only one for it.
    pub async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        if let Some(key) = self.shared.known(id, algorithm) {
            return Some(key);
        }
        self.fetch_again().await;
        self.shared.known(id, algorithm)
    }

    /// The same when that key did not sign the token: the system may have changed it and kept its
    /// id. None when nothing was fetched since that key was.
    pub async fn changed(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        tried: &Arc<Key>,
    ) -> Option<Arc<Key>> {
        self.fetch_again().await;
        self.shared.known(id, algorithm).filter(|key| !Arc::ptr_eq(key, tried))
    }

    /// Fetches the keys at the start of the process.
    ///
    /// # Errors
    /// With what is wrong; a token that comes later tries again.
    pub async fn fetch_first(&self) -> Result<(), String> {
        let mut fetched = self.shared.fetched.lock().await;
        *fetched = Some(Instant::now());
        self.shared.fetch().await
    }

    /// Fetches the keys, unless that was done a short while ago.
    async fn fetch_again(&self) {
        let asked = Instant::now();
        let shared = self.shared.clone();
        // In a task of its own: the one caller there is in 30 seconds may go away, and what was
        // fetched is for everybody.
        let fetch = async move {
            let mut fetched = shared.fetched.lock().await;
            if !may_fetch(*fetched, asked) {
                return;
            }
            *fetched = Some(Instant::now());
            if let Err(reason) = shared.fetch().await {
                tracing::warn!(reason, "the callers' keys could not be fetched; the last are kept");
            }
        };
        // It neither panics nor is it cancelled but by the end of the process.
        let _ = tokio::spawn(fetch).await;
    }
}

impl Shared {
    async fn fetch(&self) -> Result<(), String> {
        let answer = self.client.get(self.url.clone()).send().await.map_err(|e| told(&e))?;
        if !answer.status().is_success() {
            return Err(format!("AUTH_JWKS_URL answered {}", answer.status()));
        }
        let body = read(answer).await?;
        let set: Set = serde_json::from_slice(&body)
            .map_err(|_| "what AUTH_JWKS_URL answered is not a JWK set".to_owned())?;
        let keys: Vec<_> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err("AUTH_JWKS_URL has no key for RS256, ES256 or EdDSA".to_owned());
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_its = |one: &&Published| {
            one.algorithm == algorithm && (id.is_none() || one.id.as_deref() == id)
        };
        let mut its = keys.iter().filter(is_its);
        // Of several nobody says which.
        let first = its.next()?;
        (id.is_some() || its.next().is_none()).then(|| first.key.clone())
    }
}

fn may_fetch(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN_FETCHES)
}

/// A key that signs, by one of the algorithms a public key may have here. A secret that somebody
/// published is none.
fn usable(jwk: &Value) -> Option<Published> {
    let wanted = jwk.get("alg").map(|name| name.as_str().unwrap_or_default().to_owned());
    let jwk: Jwk = serde_json::from_value(jwk.clone()).ok()?;
    let (algorithm, names): (_, &[&str]) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, &["RS256"]),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, &["ES256"])
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            // The second is RFC 9864's name for the same.
            (Algorithm::EdDSA, &["EdDSA", "Ed25519"])
        }
        _ => return None,
    };
    let common = &jwk.common;
    let verifies = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        && common.key_operations.as_ref().is_none_or(verifies);
    let is_its = wanted.is_none_or(|name| names.contains(&name.as_str()));
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| signs && is_its)?;
    let key = Arc::new(Key::new(key, algorithm));
    Some(Published { id: common.key_id.clone(), algorithm, key })
}

/// Reads an answer that is as short as a set of keys is.
async fn read(mut answer: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| told(&error))? {
        if body.len() + chunk.len() > SET_BYTES {
            return Err("what AUTH_JWKS_URL answered is larger than 64 KiB".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The address may hold a secret of its own, so it is left out.
fn told(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "did not answer in time"
    } else if error.is_connect() {
        "cannot be reached"
    } else {
        "broke off its answer"
    };
    format!("AUTH_JWKS_URL {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_are_thirty_seconds_apart() {
        let now = Instant::now();
        assert!(may_fetch(None, now));
        assert!(!may_fetch(Some(now), now + Duration::from_millis(29_999)));
        assert!(may_fetch(Some(now), now + BETWEEN_FETCHES));
        assert!(!may_fetch(Some(now + BETWEEN_FETCHES), now), "one that asked before the last");
    }

    #[test]
    fn only_public_keys_that_sign_are_used() {
        let ed =
            r#""kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let is_usable = |jwk: &str| usable(&serde_json::from_str(jwk).unwrap()).is_some();
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
