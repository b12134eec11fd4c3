//! Callers' tokens from every side: the keys that verify them, and two hundred that are wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom_testkit::{caller, place, wait_until};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers};

use crate::app::{AUTH_SECRET, App, answer, uuid};
use crate::keys::{KeyPair, sign_by_secret, signed_part};

/// A public key too short to verify anything: `openssl genrsa 1024 | openssl rsa -pubout`
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDPVpua3RJuOXk0FIHQieR8oKFN
/sTF7XN8/Asw3vf4hq/F24Y+97xYpIlYA849fMNpluhl50qOMtn1X68WcfzwfHOw
kSuabzdAr3q2anlbyCGpNisLI4dNKJvYgd2RXNyBuXYs0O8y6FOZLb3NZIiBJEC0
dVTSjnT6QZZ5Z9/kBwIDAQAB
-----END PUBLIC KEY-----
";

/// One whose points are as long as P-256's, on another curve.
const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEvtterM8xJCjp3HSx3ldPkrKlnVTTNGiy
R92fFZXCJWn3FxDCyHDh9Yn3w96szcyiHxmZnmw2fApBs4hyEjhQ3Q==
-----END PUBLIC KEY-----
";

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "greenroom";

fn claims() -> Value {
    json!({"org_id": uuid(), "exp": caller::in_seconds(60), "iss": ISSUER, "aud": AUDIENCE})
}

async fn status(app: &App, token: &str) -> u16 {
    let request = app.client.get(format!("{}/api/v1/sessions", app.address)).bearer_auth(token);
    let answer = answer(request).await;
    if answer.status == 401 {
        answer.assert_problem(401, "unauthenticated");
    }
    answer.status
}

/// The program with this way of verifying callers, and issuer and audience set.
async fn app(name: &'static str, value: &str) -> App {
    let way = [
        ("AUTH_JWT_SECRET", ""),
        ("AUTH_JWT_ISSUER", ISSUER),
        ("AUTH_JWT_AUDIENCE", AUDIENCE),
        (name, value),
    ];
    App::with(&way).await
}

async fn app_of_public_key(pair: &KeyPair) -> App {
    let home = place::temporary("key", None).unwrap();
    let file = home.join("public.pem");
    std::fs::write(&file, &pair.public_pem).unwrap();
    let app = app("AUTH_JWT_PUBLIC_KEY_FILE", file.to_str().unwrap()).await;
    std::fs::remove_dir_all(home).unwrap();
    app
}

/// Values of claims that are none.
fn wrong_values() -> Vec<(&'static str, Vec<Value>)> {
    let soon = caller::in_seconds(60);
    vec![
        (
            "exp",
            vec![
                json!(caller::in_seconds(-31)),
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
                json!(caller::in_seconds(120)),
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

/// Changes of claims after which a token must not be accepted.
fn wrong_claims() -> Vec<String> {
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
    let mut wrong: Vec<_> = ["org_id", "exp", "iss", "aud"].map(without).into();
    for (name, values) in wrong_values() {
        wrong.extend(values.into_iter().map(|value| changed(name, value)));
    }
    // A second of each claim, the same and another.
    let whole = claims().to_string();
    for name in ["exp", "org_id", "iss", "aud"] {
        let own = &claims()[name];
        for second in [own.to_string(), "null".to_owned(), "\"x\"".to_owned()] {
            wrong.push(whole.replacen('{', &format!("{{\"{name}\":{second},"), 1));
            wrong.push(whole.replacen('}', &format!(",\"{name}\":{second}}}"), 1));
        }
    }
    wrong.push(whole.replacen('{', r#"{"x":1,"x":1,"#, 1));
    wrong.push(whole.replacen("\"exp\":", "\"exp\":1e400,\"x\":", 1));
    wrong.push(whole.replacen("\"exp\":", "\"exp\":99999999999999999999,\"x\":", 1));
    wrong.extend(["", "{", "[]", "null", "7", "\"x\"", "{}", "{\"exp\":}"].map(str::to_owned));
    wrong
}

/// Heads after which a token of this algorithm must not be accepted, though its signature holds.
fn wrong_heads(algorithm: Algorithm) -> Vec<String> {
    let own = format!("{algorithm:?}");
    let algorithms = [
        "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512",
        "PS256", "ES256", "ES384", "EdDSA", "RSA-OAEP", "dir", "hs256", "rs256", "Hs256",
    ];
    let other = algorithms.into_iter().filter(|name| *name != own);
    let mut heads: Vec<_> =
        other.map(|name| json!({"typ": "JWT", "alg": name}).to_string()).collect();
    heads.extend([
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
    heads
}

/// What no key signs: broken tokens, and other kinds of them.
fn wrong_shapes(good: &str) -> Vec<String> {
    let parts: Vec<_> = good.split('.').collect();
    let [head, claims, signature] = parts[..] else { panic!("{good}") };
    let mut wrong = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "x".to_owned(),
        format!("{head}.{claims}"),
        format!("{head}.{claims}."),
        format!("{head}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{head}.{claims}.{signature}."),
        format!("{good}.x"),
        format!("{good}x"),
        format!("x{good}"),
        format!("{good}="),
        good.to_uppercase(),
        format!("{claims}.{head}.{signature}"),
        format!("{head}.{claims}.{claims}"),
        // Five parts are a JWE (RFC 7516).
        format!("{head}.x.x.{claims}.{signature}"),
        // The JSON serialization of a JWS (RFC 7515, §7.2).
        json!({"payload": claims, "protected": head, "signature": signature}).to_string(),
        good.replace('.', "%2E"),
        good.replace('.', ","),
        "y".repeat(8192),
    ];
    for place in [0, 1, signature.len() / 2, signature.len() - 2] {
        let mut changed = signature.as_bytes().to_vec();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        wrong.push(format!("{head}.{claims}.{}", String::from_utf8(changed).unwrap()));
    }
    wrong
}

#[tokio::test]
async fn two_hundred_wrong_tokens_are_refused() {
    let rsa = KeyPair::rsa();
    let by_key = app_of_public_key(&rsa).await;
    let by_secret = app("AUTH_JWT_SECRET", AUTH_SECRET).await;
    let secret = AUTH_SECRET.as_bytes();
    let hs256 = r#"{"typ":"JWT","alg":"HS256"}"#;
    let rs256 = r#"{"typ":"JWT","alg":"RS256"}"#;
    let good = claims().to_string();
    let good_secret = sign_by_secret(secret, hs256, &good);
    let good_key = rsa.sign(rs256, &good);
    assert_eq!(
        (status(&by_secret, &good_secret).await, status(&by_key, &good_key).await),
        (200, 200)
    );

    let mut tried = 0;
    for claims in wrong_claims() {
        assert_eq!(
            status(&by_secret, &sign_by_secret(secret, hs256, &claims)).await,
            401,
            "{claims}"
        );
        assert_eq!(status(&by_key, &rsa.sign(rs256, &claims)).await, 401, "{claims}");
        tried += 2;
    }
    for head in wrong_heads(Algorithm::HS256) {
        assert_eq!(status(&by_secret, &sign_by_secret(secret, &head, &good)).await, 401, "{head}");
        assert_eq!(
            status(&by_secret, &format!("{}.", signed_part(&head, &good))).await,
            401,
            "{head}"
        );
        tried += 2;
    }
    for head in wrong_heads(Algorithm::RS256) {
        assert_eq!(status(&by_key, &rsa.sign(&head, &good)).await, 401, "{head}");
        tried += 1;
    }
    for token in wrong_shapes(&good_secret) {
        assert_eq!(status(&by_secret, &token).await, 401, "{token}");
        assert_eq!(status(&by_key, &token).await, 401, "{token}");
        tried += 2;
    }
    // The public key is known to everybody: as a secret it signs nothing.
    let der = rsa.public_pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let mut known =
        vec![rsa.public_pem.clone().into_bytes(), rsa.public_pem.trim().into(), der.into()];
    known.push(rsa.jwk("x")["n"].as_str().unwrap().into());
    for secret in known {
        assert_eq!(status(&by_key, &sign_by_secret(&secret, hs256, &good)).await, 401);
        tried += 1;
    }
    // Keys that a token brings along, or says where to find, are not looked at.
    let evil = KeyPair::rsa();
    for (member, value) in [
        ("jwk", evil.jwk("evil")),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("kid", json!("../../../dev/null")),
        ("kid", json!("' or 1=1 --")),
    ] {
        let head = json!({"alg": "RS256", member: value}).to_string();
        assert_eq!(status(&by_key, &evil.sign(&head, &good)).await, 401, "{member}");
        tried += 1;
    }
    assert!(tried >= 200, "{tried} were tried");
    println!("{tried} wrong tokens were refused");
    assert_eq!(
        (status(&by_secret, &good_secret).await, status(&by_key, &good_key).await),
        (200, 200)
    );
    for app in [by_secret, by_key] {
        let log = app.process.output();
        assert!(log.contains("a caller was not authenticated"));
        assert!(!log.contains(&good_secret[20..]) && !log.contains(&good_key[20..]));
    }
}

#[tokio::test]
async fn a_token_of_three_megabytes_does_no_harm() {
    let app = App::start().await;
    let token = format!("{}.{}", app.token(), "x".repeat(3 * 1024 * 1024));
    let head = format!(
        "GET /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let answered = app.raw(&head).await;
    // The HTTP parser gives up before it has read it all: a bare answer, or none.
    let status = answered.split(' ').nth(1).unwrap_or("none");
    assert!(matches!(status, "400" | "431" | "none"), "{answered}");
    let sixteen = format!("{}.{}", app.token(), "x".repeat(16 * 1024));
    assert_eq!(status_of_raw(&app, &sixteen).await, "401", "a header of 16 KiB is read");
    assert_eq!(app.get("/api/v1/sessions").await.status, 200);
}

async fn status_of_raw(app: &App, token: &str) -> String {
    let head = format!(
        "GET /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    app.raw(&head).await.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_kind_of_public_key_verifies_its_own_tokens_alone() {
    let pairs = [KeyPair::rsa(), KeyPair::ec(), KeyPair::ed()];
    for (place, pair) in pairs.iter().enumerate() {
        let app = app_of_public_key(pair).await;
        for (other, signer) in pairs.iter().enumerate() {
            let expected = if other == place { 200 } else { 401 };
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
async fn a_file_with_a_key_that_would_verify_nothing_is_refused() {
    let home = place::temporary("key", None).unwrap();
    let file = home.join("key.pem");
    let (rsa, ec, ed) = (KeyPair::rsa(), KeyPair::ec(), KeyPair::ed());
    let wrong = [
        &rsa.private_pem,
        &ec.private_pem,
        &ed.private_pem,
        &KeyPair::ec_384().public_pem,
        RSA_1024,
        SECP256K1,
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "",
    ];
    for pem in wrong {
        std::fs::write(&file, pem).unwrap();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_greenroom"))
            .arg("serve")
            .env_clear()
            .env("AUTH_JWT_PUBLIC_KEY_FILE", &file)
            .output()
            .await
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("AUTH_JWT_PUBLIC_KEY_FILE must name a PEM file"), "{pem}: {told}");
        assert!(!told.contains("BEGIN"), "{told}");
    }
    std::fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn a_secret_that_rotates_is_accepted_with_the_one_before() {
    const BEFORE: &str = "the secret before this one, thirty-two bytes";
    let app = App::with(&[("AUTH_JWT_SECRET_PREVIOUS", BEFORE)]).await;
    let claims = claims();
    assert_eq!(status(&app, &caller::token(AUTH_SECRET, &claims)).await, 200);
    assert_eq!(status(&app, &caller::token(BEFORE, &claims)).await, 200);
    let other = "a third secret nobody has ever heard of";
    assert_eq!(status(&app, &caller::token(other, &claims)).await, 401);
}

/// An identity system that publishes what it is told to, and counts who asks.
struct Identity {
    server: MockServer,
    fetched: Arc<AtomicUsize>,
}

impl Identity {
    async fn publishing(answer: ResponseTemplate) -> Self {
        let identity = Self { server: MockServer::start().await, fetched: Arc::default() };
        identity.publish(answer).await;
        identity
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
async fn published_keys_are_fetched_once_and_again_when_an_unknown_one_is_named() {
    let (one, two, ed) = (KeyPair::ec(), KeyPair::rsa(), KeyPair::ed());
    let identity = Identity::publishing(set(&[one.jwk("one"), ed.jwk("ed")])).await;
    let app = app("AUTH_JWKS_URL", &identity.url()).await;
    assert_eq!(identity.fetched(), 1, "at the start");
    assert_eq!(status(&app, &one.token(Some("one"), &claims())).await, 200);
    assert_eq!(status(&app, &ed.token(Some("ed"), &claims())).await, 200);
    assert_eq!(status(&app, &one.token(Some("ed"), &claims())).await, 401, "another's id");
    assert_eq!(status(&app, &one.token(None, &claims())).await, 200, "the only one for ES256");
    assert_eq!(status(&app, &KeyPair::ec().token(Some("one"), &claims())).await, 401);
    assert_eq!(identity.fetched(), 1);

    // A key that appears, and ids that somebody makes up: one fetch in 30 seconds is all there is.
    identity.publish(set(&[one.jwk("one"), two.jwk("two")])).await;
    for number in 0..20 {
        assert_eq!(
            status(&app, &two.token(Some(&format!("made up {number}")), &claims())).await,
            401
        );
    }
    assert_eq!(identity.fetched(), 1);
    let patience = Duration::from_secs(40);
    wait_until("the new key to be fetched", patience, async || {
        Ok((status(&app, &two.token(Some("two"), &claims())).await == 200).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(identity.fetched(), 2);
    assert_eq!(status(&app, &one.token(Some("one"), &claims())).await, 200);
    assert_eq!(status(&app, &ed.token(Some("ed"), &claims())).await, 401, "withdrawn");
}

#[tokio::test]
async fn keys_are_told_apart_by_their_algorithm_and_none_is_guessed() {
    let (rsa, ec, other) = (KeyPair::rsa(), KeyPair::ec(), KeyPair::ec());
    let nameless = |pair: &KeyPair| {
        let mut jwk = pair.jwk("x");
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let broken = json!({"kty": "RSA", "kid": 7});
    let same = set(&[broken, rsa.jwk("same"), ec.jwk("same")]);
    let identity = Identity::publishing(same).await;
    let app = app("AUTH_JWKS_URL", &identity.url()).await;
    assert_eq!(status(&app, &rsa.token(Some("same"), &claims())).await, 200);
    assert_eq!(status(&app, &ec.token(Some("same"), &claims())).await, 200);

    let identity =
        Identity::publishing(set(&[nameless(&rsa), nameless(&ec), nameless(&other)])).await;
    let app = self::app("AUTH_JWKS_URL", &identity.url()).await;
    assert_eq!(status(&app, &rsa.token(None, &claims())).await, 200, "the only one for RS256");
    assert_eq!(status(&app, &ec.token(None, &claims())).await, 401, "which of the two?");
    assert_eq!(status(&app, &other.token(None, &claims())).await, 401);
}

#[tokio::test]
async fn a_fetch_goes_on_when_its_caller_is_gone_and_finds_a_changed_key() {
    let (before, after) = (KeyPair::ec(), KeyPair::ec());
    let identity = Identity::publishing(set(&[before.jwk("one")])).await;
    let app = app("AUTH_JWKS_URL", &identity.url()).await;
    assert_eq!(status(&app, &before.token(Some("one"), &claims())).await, 200);
    // The same id, another key; and who asks first goes away while the answer is under way.
    identity.publish(set(&[after.jwk("one")]).set_delay(Duration::from_secs(1))).await;
    let token = after.token(Some("one"), &claims());
    let head = format!(
        "GET /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    wait_until("the set to be fetched again", Duration::from_secs(40), async || {
        app.send_and_reset(&head).await;
        Ok((identity.fetched() == 2).then_some(()))
    })
    .await
    .unwrap();
    wait_until("the new key to be known", Duration::from_secs(5), async || {
        Ok((status(&app, &token).await == 200).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(identity.fetched(), 2);
    assert_eq!(status(&app, &before.token(Some("one"), &claims())).await, 401, "withdrawn");
}

#[tokio::test]
async fn the_last_good_keys_are_kept_while_fetches_fail() {
    let pair = KeyPair::ec();
    let identity = Identity::publishing(set(&[pair.jwk("one")])).await;
    let app = app("AUTH_JWKS_URL", &identity.url()).await;
    identity.publish(ResponseTemplate::new(500)).await;
    let patience = Duration::from_secs(40);
    wait_until("another fetch, which fails", patience, async || {
        assert_eq!(status(&app, &pair.token(Some("other"), &claims())).await, 401);
        Ok((identity.fetched() == 2).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(status(&app, &pair.token(Some("one"), &claims())).await, 200);
}

#[tokio::test]
async fn what_is_no_set_of_keys_lets_nobody_in_and_the_program_starts() {
    let pair = KeyPair::ec();
    let elsewhere = Identity::publishing(set(&[pair.jwk("one")])).await;
    let padding = json!({"keys": [pair.jwk("one")], "x": "x".repeat(64 * 1024)});
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "one"});
    for answer in [
        ResponseTemplate::new(302).insert_header("location", elsewhere.url().as_str()),
        ResponseTemplate::new(200).set_body_string("<html>"),
        ResponseTemplate::new(200).set_body_json(padding),
        set(&[]),
        set(&[secret, KeyPair::ec_384().jwk("one")]),
    ] {
        let identity = Identity::publishing(answer).await;
        let app = app("AUTH_JWKS_URL", &identity.url()).await;
        assert_eq!(status(&app, &pair.token(Some("one"), &claims())).await, 401);
        assert!(app.process.output().contains("callers cannot be verified"));
    }
    assert_eq!(elsewhere.fetched(), 0, "a redirect is not followed");
}
