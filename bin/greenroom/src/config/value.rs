//! Parsers for the values of variables. An error completes the sentence that begins with the
//! variable's name.

use std::net::SocketAddr;
use std::str::FromStr;

use greenroom_core::domain::Invalid;
use greenroom_core::domain::secret::check_secret;
use reqwest::Url;
use secrecy::SecretString;

use super::LogFormat;
use crate::auth::jwks::Jwks;
use crate::auth::key::Key;

pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 0.0.0.0:8080".to_owned())
}

/// Parses a value. Its type defines the valid values.
pub fn checked<T: FromStr<Err: Into<Invalid>>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|refused: T::Err| refused.into().to_string())
}

/// Parses origins in the form that browsers send (RFC 6454, §6.2): a scheme, a host, and a port
/// only if it is not the scheme's default.
pub fn origins(text: &str) -> Result<Vec<String>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let url = Url::parse(part).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let origin = url.map(|url| url.origin().ascii_serialization());
            origin.filter(|origin| origin == part).ok_or_else(|| {
                "must be origins such as https://app.example.com, separated by commas".into()
            })
        })
        .collect()
}

pub fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("must be a filter in tracing's syntax, such as info or greenroom=debug".into())
        }
    }
}

pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

/// Parses the shared secret of callers' tokens.
pub fn jwt_secret(text: &str) -> Result<SecretString, String> {
    check_secret(text).map_err(|invalid| invalid.to_string())?;
    Ok(text.into())
}

pub fn public_key(file: &str) -> Result<Key, String> {
    let pem = std::fs::read(file)
        .map_err(|error| format!("names a file that cannot be read: {error}"))?;
    let expected = "must name a PEM file with a public key: RSA of at least 2048 bits, EC on P-256, or Ed25519";
    Key::from_pem(&pem).ok_or_else(|| expected.to_owned())
}

pub fn jwks(text: &str) -> Result<Jwks, String> {
    let url = Url::parse(text).ok().filter(|url| match url.scheme() {
        "https" => true,
        // Over plain HTTP, an attacker in the network could replace the keys.
        "http" => is_loopback(url),
        _ => false,
    });
    let url = url.ok_or("must be an https:// URL, or an http:// URL of a loopback address")?;
    Jwks::new(url).map_err(|_| "cannot be fetched: the HTTP client could not be created".to_owned())
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

pub fn claim_name(text: &str) -> Result<String, String> {
    // Every token uses these claims for another purpose.
    const RESERVED: [&str; 7] = ["exp", "nbf", "iat", "iss", "aud", "jti", "scope"];
    if RESERVED.contains(&text) {
        return Err(format!("must not be one of {}", RESERVED.join(", ")));
    }
    Ok(text.to_owned())
}
