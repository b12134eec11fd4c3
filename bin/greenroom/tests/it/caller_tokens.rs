//! Verification of callers' tokens: secrets, keys and JWKS, and two hundred invalid tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom_testkit::{caller, paths, wait_until};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers};

use crate::app::{AUTH_SECRET, App, answer, uuid};
use crate::signing_keys::{KeyPair, sign_by_secret, signed_part};

/// An RSA key that is too short: `openssl genrsa 1024 | openssl rsa -pubout`
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDPVpua3RJuOXk0FIHQieR8oKFN
/sTF7XN8/Asw3vf4hq/F24Y+97xYpIlYA849fMNpluhl50qOMtn1X68WcfzwfHOw
kSuabzdAr3q2anlbyCGpNisLI4dNKJvYgd2RXNyBuXYs0O8y6FOZLb3NZIiBJEC0
dVTSjnT6QZZ5Z9/kBwIDAQAB
-----END PUBLIC KEY-----
";

/// A key on another curve than P-256, with points of the same length.
const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEvtterM8xJCjp3HSx3ldPkrKlnVTTNGiy
R92fFZXCJWn3FxDCyHDh9Yn3w96szcyiHxmZnmw2fApBs4hyEjhQ3Q==
-----END PUBLIC KEY-----
";

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "greenroom";

fn claims() -> Value {
    json!({"org_id": uuid(), "exp": caller::seconds_from_now(60), "iss": ISSUER, "aud": AUDIENCE})
}

async fn status(app: &App, token: &str) -> u16 {
    let request = app.client.get(format!("{}/api/v1/sessions", app.address)).bearer_auth(token);
    let answer = answer(request).await;
    if answer.status == 401 {
        answer.assert_problem(401, "unauthenticated");
    }
    answer.status
}

/// A process with this variable for the verification of callers, and with issuer and audience.
async fn app(name: &'static str, value: &str) -> App {
    let variables = [
        ("AUTH_JWT_SECRET", ""),
        ("AUTH_JWT_ISSUER", ISSUER),
        ("AUTH_JWT_AUDIENCE", AUDIENCE),
        (name, value),
    ];
    App::with(&variables).await
}

async fn app_of_public_key(pair: &KeyPair) -> App {
    let home = paths::create_temp_dir("key", None).unwrap();
    let file = home.join("public.pem");
    std::fs::write(&file, &pair.public_pem).unwrap();
    let app = app("AUTH_JWT_PUBLIC_KEY_FILE", file.to_str().unwrap()).await;
    std::fs::remove_dir_all(home).unwrap();
    app
}

/// Invalid values of each claim.
fn invalid_values() -> Vec<(&'static str, Vec<Value>)> {
    let soon = caller::seconds_from_now(60);
    vec![
        (
            "exp",
            vec![
                json!(caller::seconds_from_now(-31)),
                json!(0),
                json!(-1),
                json!(soon.to_string()),
                json!([soon]),
                json!(f64::from(u32::try_from(soon).unwrap()) + 0.5),
                json!(true),
                json!({}),
                Value::Null,
            ],
        ),
        (
            "nbf",
            vec![
                json!(caller::seconds_from_now(120)),
                json!(1.5),
                json!("0"),
                json!(-1),
                json!([0]),
                Value::Null,
                json!(u64::MAX),
            ],
        ),
        (
            "org_id",
            vec![
                json!(""),
                json!("42"),
                json!(42),
                json!([uuid()]),
                json!({"id": uuid()}),
                json!(true),
                Value::Null,
                json!(format!("{}x", uuid())),
                json!("../admin"),
                json!("\u{0}"),
            ],
        ),
        (
            "iss",
            vec![
                json!(""),
                json!("https://id.example/"),
                json!("https://evil.example"),
                json!([ISSUER]),
                json!(7),
                Value::Null,
                json!("HTTPS://ID.EXAMPLE"),
            ],
        ),
        (
            "aud",
            vec![
                json!(""),
                json!("Greenroom"),
                json!([AUDIENCE]),
                json!([]),
                json!(["other", AUDIENCE]),
                json!(7),
                Value::Null,
                json!("greenroom "),
            ],
        ),
        (
            "user_id",
            vec![
                json!(""),
                Value::Null,
                json!(7),
                json!(["ann"]),
                json!({}),
                json!(false),
                json!("a".repeat(129)),
                json!("€".repeat(86)),
                json!("a\u{0}b"),
                json!("a\nb"),
            ],
        ),
        ("scope", vec![Value::Null, json!(["sessions:read"]), json!(7), json!({}), json!(true)]),
    ]
}

/// Claims with which a token must be refused.
fn invalid_claims() -> Vec<String> {
    let changed = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims.to_string()
    };
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims.to_string()
    };
    let mut invalid: Vec<_> = ["org_id", "exp", "iss", "aud"].map(without).into();
    for (name, values) in invalid_values() {
        invalid.extend(values.into_iter().map(|value| changed(name, value)));
    }
    // Each claim twice, with the same value and with another.
    let valid = claims().to_string();
    for name in ["exp", "org_id", "iss", "aud"] {
        let value = &claims()[name];
        for second in [value.to_string(), "null".to_owned(), "\"x\"".to_owned()] {
            invalid.push(valid.replacen('{', &format!("{{\"{name}\":{second},"), 1));
            invalid.push(valid.replacen('}', &format!(",\"{name}\":{second}}}"), 1));
        }
    }
    invalid.push(valid.replacen('{', r#"{"x":1,"x":1,"#, 1));
    invalid.push(valid.replacen("\"exp\":", "\"exp\":1e400,\"x\":", 1));
    invalid.push(valid.replacen("\"exp\":", "\"exp\":99999999999999999999,\"x\":", 1));
    invalid.extend(["", "{", "[]", "null", "7", "\"x\"", "{}", "{\"exp\":}"].map(str::to_owned));
    invalid
}

/// Headers with which a token must be refused although a key of this algorithm has signed it.
fn invalid_headers(algorithm: Algorithm) -> Vec<String> {
    let own = format!("{algorithm:?}");
    let algorithms = [
        "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512",
        "PS256", "ES256", "ES384", "EdDSA", "RSA-OAEP", "dir", "hs256", "rs256", "Hs256",
    ];
    let other = algorithms.into_iter().filter(|name| *name != own);
    let mut headers: Vec<_> =
        other.map(|name| json!({"typ": "JWT", "alg": name}).to_string()).collect();
    headers.extend([
        json!({"typ": "JWT"}).to_string(),
        json!({"alg": [own]}).to_string(),
        json!({"alg": null}).to_string(),
        json!({"alg": own, "crit": ["exp"]}).to_string(),
        json!({"alg": own, "crit": ["b64"], "b64": false}).to_string(),
        json!({"alg": own, "crit": []}).to_string(),
        format!(r#"{{"alg":"{own}","alg":"none"}}"#),
        format!(r#"{{"alg":"none","alg":"{own}"}}"#),
        "{}".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        String::new(),
    ]);
    headers
}

/// Malformed tokens, and tokens of other kinds, made from a valid token.
fn malformed_tokens(valid: &str) -> Vec<String> {
    let parts: Vec<_> = valid.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{valid}") };
    let mut malformed = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "x".to_owned(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{header}.{claims}.{signature}."),
        format!("{valid}.x"),
        format!("{valid}x"),
        format!("x{valid}"),
        format!("{valid}="),
        valid.to_uppercase(),
        format!("{claims}.{header}.{signature}"),
        format!("{header}.{claims}.{claims}"),
        // Five parts are a JWE (RFC 7516).
        format!("{header}.x.x.{claims}.{signature}"),
        // The JSON serialization of a JWS (RFC 7515, §7.2).
        json!({"payload": claims, "protected": header, "signature": signature}).to_string(),
        valid.replace('.', "%2E"),
        valid.replace('.', ","),
        "y".repeat(8192),
    ];
    for index in [0, 1, signature.len() / 2, signature.len() - 2] {
        let mut changed = signature.as_bytes().to_vec();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        malformed.push(format!("{header}.{claims}.{}", String::from_utf8(changed).unwrap()));
    }
    malformed
}

#[tokio::test]
async fn two_hundred_invalid_tokens_are_refused() {
    let rsa = KeyPair::rsa();
    let by_key = app_of_public_key(&rsa).await;
    let by_secret = app("AUTH_JWT_SECRET", AUTH_SECRET).await;
    let secret = AUTH_SECRET.as_bytes();
    let hs256 = r#"{"typ":"JWT","alg":"HS256"}"#;
    let rs256 = r#"{"typ":"JWT","alg":"RS256"}"#;
    let valid = claims().to_string();
    let valid_by_secret = sign_by_secret(secret, hs256, &valid);
    let valid_by_key = rsa.sign(rs256, &valid);
    assert_eq!(
        (status(&by_secret, &valid_by_secret).await, status(&by_key, &valid_by_key).await),
        (200, 200)
    );

    let mut tried = 0;
    for claims in invalid_claims() {
        assert_eq!(
            status(&by_secret, &sign_by_secret(secret, hs256, &claims)).await,
            401,
            "{claims}"
        );
        assert_eq!(status(&by_key, &rsa.sign(rs256, &claims)).await, 401, "{claims}");
        tried += 2;
    }
    for header in invalid_headers(Algorithm::HS256) {
        let token = sign_by_secret(secret, &header, &valid);
        assert_eq!(status(&by_secret, &token).await, 401, "{header}");
        let unsigned = format!("{}.", signed_part(&header, &valid));
        assert_eq!(status(&by_secret, &unsigned).await, 401, "{header}");
        tried += 2;
    }
    for header in invalid_headers(Algorithm::RS256) {
        assert_eq!(status(&by_key, &rsa.sign(&header, &valid)).await, 401, "{header}");
        tried += 1;
    }
    for token in malformed_tokens(&valid_by_secret) {
        assert_eq!(status(&by_secret, &token).await, 401, "{token}");
        assert_eq!(status(&by_key, &token).await, 401, "{token}");
        tried += 2;
    }
    // The public key is not secret, so a token that uses it as an HS256 secret must be refused.
    let der = rsa.public_pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let mut public =
        vec![rsa.public_pem.clone().into_bytes(), rsa.public_pem.trim().into(), der.into()];
    public.push(rsa.jwk("x")["n"].as_str().unwrap().into());
    for secret in public {
        assert_eq!(status(&by_key, &sign_by_secret(&secret, hs256, &valid)).await, 401);
        tried += 1;
    }
    // Keys in a token's header, or at a URL in the header, must be ignored.
    let evil = KeyPair::rsa();
    for (member, value) in [
        ("jwk", evil.jwk("evil")),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("kid", json!("../../../dev/null")),
        ("kid", json!("' or 1=1 --")),
    ] {
        let header = json!({"alg": "RS256", member: value}).to_string();
        assert_eq!(status(&by_key, &evil.sign(&header, &valid)).await, 401, "{member}");
        tried += 1;
    }
    assert!(tried >= 200, "only {tried} tokens");
    println!("{tried} invalid tokens were refused");
    assert_eq!(
        (status(&by_secret, &valid_by_secret).await, status(&by_key, &valid_by_key).await),
        (200, 200)
    );
    for app in [by_secret, by_key] {
        let log = app.process.output();
        assert!(log.contains("failed to authenticate a caller"));
        assert!(!log.contains(&valid_by_secret[20..]) && !log.contains(&valid_by_key[20..]));
    }
}

#[tokio::test]
async fn token_of_3_mib_is_refused() {
    let app = App::start().await;
    let token = format!("{}.{}", app.token(), "x".repeat(3 * 1024 * 1024));
    let request = format!(
        "GET /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let answered = app.send_raw(&request).await;
    // The HTTP parser stops reading early. It sends a bare response, or closes the connection.
    let status = answered.split(' ').nth(1).unwrap_or("closed");
    assert!(matches!(status, "400" | "431" | "closed"), "{answered}");
    let token_of_16_kib = format!("{}.{}", app.token(), "x".repeat(16 * 1024));
    assert_eq!(status_of_raw(&app, &token_of_16_kib).await, "401", "the parser accepts 16 KiB");
    assert_eq!(app.get("/api/v1/sessions").await.status, 200);
}

async fn status_of_raw(app: &App, token: &str) -> String {
    let request = format!(
        "GET /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    app.send_raw(&request).await.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn public_key_of_each_kind_verifies_only_its_own_tokens() {
    let pairs = [KeyPair::rsa(), KeyPair::ec(), KeyPair::ed()];
    for (index, pair) in pairs.iter().enumerate() {
        let app = app_of_public_key(pair).await;
        for (other, signer) in pairs.iter().enumerate() {
            let expected = if other == index { 200 } else { 401 };
            let token = signer.token(None, &claims());
            assert_eq!(
                status(&app, &token).await,
                expected,
                "{:?} {:?}",
                pair.algorithm,
                signer.algorithm
            );
        }
    }
}

#[tokio::test]
async fn unusable_public_key_file_is_refused() {
    let home = paths::create_temp_dir("key", None).unwrap();
    let file = home.join("key.pem");
    let (rsa, ec, ed) = (KeyPair::rsa(), KeyPair::ec(), KeyPair::ed());
    let unusable = [
        &rsa.private_pem,
        &ec.private_pem,
        &ed.private_pem,
        &KeyPair::ec_384().public_pem,
        RSA_1024,
        SECP256K1,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "",
    ];
    for pem in unusable {
        std::fs::write(&file, pem).unwrap();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_greenroom"))
            .arg("serve")
            .env_clear()
            .env("AUTH_JWT_PUBLIC_KEY_FILE", &file)
            .output()
            .await
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            errors.contains("AUTH_JWT_PUBLIC_KEY_FILE must name a PEM file"),
            "{pem}: {errors}"
        );
        assert!(!errors.contains("BEGIN"), "{errors}");
    }
    std::fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn current_and_previous_secret_are_accepted() {
    const PREVIOUS: &str = "the previous secret of thirty-two bytes or more";
    let app = App::with(&[("AUTH_JWT_SECRET_PREVIOUS", PREVIOUS)]).await;
    let claims = claims();
    assert_eq!(status(&app, &caller::token(AUTH_SECRET, &claims)).await, 200);
    assert_eq!(status(&app, &caller::token(PREVIOUS, &claims)).await, 200);
    let other = "a third secret that is not configured";
    assert_eq!(status(&app, &caller::token(other, &claims)).await, 401);
}

/// An identity provider that serves a JWKS document and counts the fetches.
struct IdentityProvider {
    server: MockServer,
    fetched: Arc<AtomicUsize>,
}

impl IdentityProvider {
    async fn publishing(answer: ResponseTemplate) -> Self {
        let provider = Self { server: MockServer::start().await, fetched: Arc::default() };
        provider.publish(answer).await;
        provider
    }

    async fn publish(&self, answer: ResponseTemplate) {
        self.server.reset().await;
        let fetched = self.fetched.clone();
        let count = move |_: &Request| {
            fetched.fetch_add(1, Ordering::SeqCst);
            answer.clone()
        };
        Mock::given(matchers::path("/jwks")).respond_with(count).mount(&self.server).await;
    }

    fn url(&self) -> String {
        format!("{}/jwks", self.server.uri())
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }
}

fn set(keys: &[Value]) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"keys": keys}))
}

#[tokio::test]
async fn unknown_key_id_refetches_keys_at_most_every_30_seconds() {
    let (one, two, ed) = (KeyPair::ec(), KeyPair::rsa(), KeyPair::ed());
    let provider = IdentityProvider::publishing(set(&[one.jwk("one"), ed.jwk("ed")])).await;
    let app = app("AUTH_JWKS_URL", &provider.url()).await;
    assert_eq!(provider.fetched(), 1, "at startup");
    assert_eq!(status(&app, &one.token(Some("one"), &claims())).await, 200);
    assert_eq!(status(&app, &ed.token(Some("ed"), &claims())).await, 200);
    assert_eq!(status(&app, &one.token(Some("ed"), &claims())).await, 401, "the id of another key");
    assert_eq!(status(&app, &one.token(None, &claims())).await, 200, "the only key for ES256");
    assert_eq!(status(&app, &KeyPair::ec().token(Some("one"), &claims())).await, 401);
    assert_eq!(provider.fetched(), 1);

    // The key `two` is published. Made-up key ids cause at most one fetch every 30 seconds.
    provider.publish(set(&[one.jwk("one"), two.jwk("two")])).await;
    for number in 0..20 {
        assert_eq!(
            status(&app, &two.token(Some(&format!("made up {number}")), &claims())).await,
            401
        );
    }
    assert_eq!(provider.fetched(), 1);
    let timeout = Duration::from_secs(40);
    wait_until("a fetch of the new key", timeout, async || {
        Ok((status(&app, &two.token(Some("two"), &claims())).await == 200).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(provider.fetched(), 2);
    assert_eq!(status(&app, &one.token(Some("one"), &claims())).await, 200);
    assert_eq!(status(&app, &ed.token(Some("ed"), &claims())).await, 401, "withdrawn");
}

#[tokio::test]
async fn ambiguous_key_is_refused_and_algorithm_resolves_ambiguity() {
    let (rsa, ec, other) = (KeyPair::rsa(), KeyPair::ec(), KeyPair::ec());
    let without_id = |pair: &KeyPair| {
        let mut jwk = pair.jwk("x");
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let broken = json!({"kty": "RSA", "kid": 7});
    let same_ids = set(&[broken, rsa.jwk("same"), ec.jwk("same")]);
    let provider = IdentityProvider::publishing(same_ids).await;
    let app = app("AUTH_JWKS_URL", &provider.url()).await;
    assert_eq!(status(&app, &rsa.token(Some("same"), &claims())).await, 200);
    assert_eq!(status(&app, &ec.token(Some("same"), &claims())).await, 200);

    let provider =
        IdentityProvider::publishing(set(&[without_id(&rsa), without_id(&ec), without_id(&other)]))
            .await;
    let app = self::app("AUTH_JWKS_URL", &provider.url()).await;
    assert_eq!(status(&app, &rsa.token(None, &claims())).await, 200, "the only key for RS256");
    assert_eq!(status(&app, &ec.token(None, &claims())).await, 401, "ambiguous without a kid");
    assert_eq!(status(&app, &other.token(None, &claims())).await, 401);
}

#[tokio::test]
async fn fetch_continues_after_its_caller_disconnects() {
    let (before, after) = (KeyPair::ec(), KeyPair::ec());
    let provider = IdentityProvider::publishing(set(&[before.jwk("one")])).await;
    let app = app("AUTH_JWKS_URL", &provider.url()).await;
    assert_eq!(status(&app, &before.token(Some("one"), &claims())).await, 200);
    // Another key is published under the same id. The first caller disconnects during the fetch.
    provider.publish(set(&[after.jwk("one")]).set_delay(Duration::from_secs(1))).await;
    let token = after.token(Some("one"), &claims());
    let request = format!(
        "GET /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    wait_until("another fetch of the keys", Duration::from_secs(40), async || {
        app.send_and_reset(&request).await;
        Ok((provider.fetched() == 2).then_some(()))
    })
    .await
    .unwrap();
    wait_until("the new key", Duration::from_secs(5), async || {
        Ok((status(&app, &token).await == 200).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(provider.fetched(), 2);
    assert_eq!(status(&app, &before.token(Some("one"), &claims())).await, 401, "withdrawn");
}

#[tokio::test]
async fn failed_fetch_keeps_last_good_keys() {
    let pair = KeyPair::ec();
    let provider = IdentityProvider::publishing(set(&[pair.jwk("one")])).await;
    let app = app("AUTH_JWKS_URL", &provider.url()).await;
    provider.publish(ResponseTemplate::new(500)).await;
    let timeout = Duration::from_secs(40);
    wait_until("another fetch, which fails", timeout, async || {
        assert_eq!(status(&app, &pair.token(Some("other"), &claims())).await, 401);
        Ok((provider.fetched() == 2).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(status(&app, &pair.token(Some("one"), &claims())).await, 200);
}

#[tokio::test]
async fn process_starts_with_unusable_key_set_and_refuses_callers() {
    let pair = KeyPair::ec();
    let elsewhere = IdentityProvider::publishing(set(&[pair.jwk("one")])).await;
    let padding = json!({"keys": [pair.jwk("one")], "x": "x".repeat(64 * 1024)});
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "one"});
    for answer in [
        ResponseTemplate::new(302).insert_header("location", elsewhere.url().as_str()),
        ResponseTemplate::new(200).set_body_string("<html>"),
        ResponseTemplate::new(200).set_body_json(padding),
        set(&[]),
        set(&[secret, KeyPair::ec_384().jwk("one")]),
    ] {
        let provider = IdentityProvider::publishing(answer).await;
        let app = app("AUTH_JWKS_URL", &provider.url()).await;
        assert_eq!(status(&app, &pair.token(Some("one"), &claims())).await, 401);
        assert!(app.process.output().contains("failed to fetch the callers' keys"));
    }
    assert_eq!(elsewhere.fetched(), 0, "a redirect is not followed");
}
