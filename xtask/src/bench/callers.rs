//! CPU time that the verification of a caller's token takes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use greenroom_testkit::caller;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use super::deployment::{BenchEnv, Deployment};
use super::figure::{Measurement, Threshold, Unit};
use super::process;
use super::raw_http::Connection;
use crate::api::ORGANIZATION;

const REQUESTS: u32 = 40_000;

/// Maximum for HS256, in microseconds.
const HS256: f64 = 15.0;

/// Maximum for RS256, in microseconds.
const RS256: f64 = 60.0;

pub async fn measure(env: &BenchEnv) -> Result<Vec<Measurement>> {
    let log = ("GREENROOM_LOG", "error");
    let by_secret = Deployment::start(env, "callers-hs256", &[log]).await?;
    let token = by_secret.service.token_of(ORGANIZATION);
    let hs256 = verification(&by_secret, &token).await?;

    let (public_key, token) = rsa_key_and_token()?;
    let file = env.home.join("callers-public-key.pem");
    std::fs::write(&file, public_key)?;
    let file = file.to_str().context("the path of the key file is not UTF-8")?;
    // An empty secret counts as absent.
    let settings = [log, ("AUTH_JWT_SECRET", ""), ("AUTH_JWT_PUBLIC_KEY_FILE", file)];
    let by_key = Deployment::start(env, "callers-rs256", &settings).await?;
    let rs256 = verification(&by_key, &token).await?;

    let measurement = |algorithm: &str, measured, maximum| Measurement {
        measured,
        threshold: Threshold::AtMost(maximum),
        unit: Unit::Microseconds,
        description: format!("of CPU time to verify {algorithm}, over {REQUESTS} requests"),
    };
    Ok(vec![measurement("HS256", hs256, HS256), measurement("RS256", rs256, RS256)])
}

/// CPU time of one verification in microseconds: a request with a token against one without.
async fn verification(deployment: &Deployment, token: &str) -> Result<f64> {
    // The id is no UUID: the request ends right after authentication, without a query.
    let path = "/api/v1/sessions/not-a-uuid";
    let verified = cpu_time(deployment, path, &format!("Bearer {token}"), 400).await?;
    let refused = cpu_time(deployment, path, "Basic no-token", 401).await?;
    Ok((verified.as_secs_f64() - refused.as_secs_f64()) * 1e6 / f64::from(REQUESTS))
}

/// A fresh 2,048-bit RSA public key as PEM, and a caller's token that its private key signed.
fn rsa_key_and_token() -> Result<(String, String)> {
    let pair = KeyPair::generate(KeySize::Rsa2048).context("failed to generate an RSA key")?;
    let public: PublicKeyX509Der<'_> =
        pair.public_key().as_der().context("failed to encode the public key")?;
    let private: Pkcs8V1Der<'_> = pair.as_der().context("failed to encode the private key")?;
    let signing_key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes())?;
    let claims = json!({ "org_id": ORGANIZATION, "exp": caller::seconds_from_now(3_600) });
    let token = encode(&Header::new(Algorithm::RS256), &claims, &signing_key)?;
    Ok((pem("PUBLIC KEY", public.as_ref()), token))
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

/// CPU time of the process for all requests.
async fn cpu_time(
    deployment: &Deployment,
    path: &str,
    authorization: &str,
    expected: u16,
) -> Result<Duration> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: greenroom\r\nAuthorization: {authorization}\r\n\r\n");
    let pid = deployment.service.pid()?;
    let mut connection = Connection::open(deployment.service.address()).await?;
    let before = process::processor_time(pid)?;
    for _ in 0..REQUESTS {
        let status = connection.send(request.as_bytes()).await?;
        ensure!(status == expected, "{path} returned {status} instead of {expected}");
    }
    Ok(process::processor_time(pid)?.saturating_sub(before))
}
