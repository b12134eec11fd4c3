//! The keys an identity system publishes (RFC 7517), fetched when a token names one we have not seen.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Client, Response, Url, redirect};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::verify::Key;

/// The least time between two fetches: whoever makes up key ids costs the identity system no more
/// than this.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);

/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest set, in bytes.
const SET_BYTES: usize = 64 * 1024;

/// The keys of an identity system, as it last published them.
pub struct Jwks {
    url: Url,
    client: Client,
    keys: RwLock<Arc<HashMap<Option<String>, Arc<Key>>>>,
    /// When the last fetch began. Held while one is under way, so that there is one at a time.
    fetched: Mutex<Option<Instant>>,
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
        Ok(Self { url, client, keys: RwLock::default(), fetched: Mutex::new(None) })
    }

    /// The key of this id; without an id the only one there is.
    pub async fn key(&self, id: Option<&str>) -> Option<Arc<Key>> {
        if let Some(key) = self.known(id) {
            return Some(key);
        }
        // A token without an id asks for no key in particular, so that there is nothing to look for
        // once there are keys.
        if id.is_none() && !self.current().is_empty() {
            return None;
        }
        let mut fetched = self.fetched.lock().await;
        // Whoever fetched meanwhile may have found it.
        if let Some(key) = self.known(id) {
            return Some(key);
        }
        let now = Instant::now();
        if !may_fetch(*fetched, now) {
            return None;
        }
        *fetched = Some(now);
        if let Err(reason) = self.fetch().await {
            tracing::warn!(
                reason,
                "the callers' keys could not be fetched; the last ones are kept"
            );
        }
        self.known(id)
    }

    /// Fetches the keys at the start of the process.
    ///
    /// # Errors
    /// With what is wrong; a token that comes later tries again.
    pub async fn fetch_first(&self) -> Result<(), String> {
        let mut fetched = self.fetched.lock().await;
        *fetched = Some(Instant::now());
        self.fetch().await
    }

    async fn fetch(&self) -> Result<(), String> {
        let answer = self.client.get(self.url.clone()).send().await.map_err(|e| told(&e))?;
        if !answer.status().is_success() {
            return Err(format!("AUTH_JWKS_URL answered {}", answer.status()));
        }
        let body = read(answer).await?;
        let set: JwkSet = serde_json::from_slice(&body)
            .map_err(|_| "what AUTH_JWKS_URL answered is not a JWK set".to_owned())?;
        let keys: HashMap<_, _> = set
            .keys
            .iter()
            .filter_map(|jwk| Some((jwk.common.key_id.clone(), Arc::new(usable(jwk)?))))
            .collect();
        if keys.is_empty() {
            return Err("AUTH_JWKS_URL has no key for RS256, ES256 or EdDSA".to_owned());
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    fn known(&self, id: Option<&str>) -> Option<Arc<Key>> {
        let keys = self.current();
        match id {
            Some(id) => keys.get(&Some(id.to_owned())).cloned(),
            None if keys.len() == 1 => keys.values().next().cloned(),
            None => None,
        }
    }

    fn current(&self) -> Arc<HashMap<Option<String>, Arc<Key>>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn may_fetch(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= BETWEEN_FETCHES)
}

/// A key that signs, by one of the algorithms a public key may have here. A secret that somebody
/// published is none.
fn usable(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let common = &jwk.common;
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let is_its = common.key_algorithm.is_none_or(|own| own == KeyAlgorithm::from(algorithm));
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs && is_its)?;
    Some(Key::new(key, algorithm))
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
        "did not answer within 5 s"
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
    }

    #[test]
    fn only_public_keys_that_sign_are_used() {
        let ed =
            r#""kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let is_usable = |jwk: &str| usable(&serde_json::from_str(jwk).unwrap()).is_some();
        assert!(is_usable(&format!("{{{ed}}}")));
        assert!(is_usable(&format!(r#"{{{ed}, "use": "sig", "alg": "EdDSA", "kid": "1"}}"#)));
        assert!(!is_usable(&format!(r#"{{{ed}, "use": "enc"}}"#)));
        assert!(!is_usable(&format!(r#"{{{ed}, "alg": "RS256"}}"#)));
        assert!(!is_usable(r#"{"kty": "oct", "k": "c2VjcmV0"}"#));
        assert!(!is_usable(r#"{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}"#));
    }
}
