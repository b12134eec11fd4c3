//! The configuration: reads and checks every variable, and reports all faults at once.

mod reader;
mod value;
mod variable;

use std::net::SocketAddr;
use std::path::Path;

use greenroom_core::{Config, DatabaseUrl, KeyPair, LiveKitConfig, OnLiveKitDown};
use secrecy::SecretString;

use self::reader::Reader;
use self::value::{
    address, checked, claim_name, jwks, jwt_secret, log_filter, log_format, origins, public_key,
};
use self::variable::WITHOUT_EFFECT;
use crate::auth::claims::ClaimRules;
use crate::auth::key::Key;
use crate::auth::verify::{Keys, Verifier};

pub use self::reader::Faults;

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The settings of `serve`.
pub struct Settings {
    /// The address of the HTTP API.
    pub listen: SocketAddr,
    /// The origins of the web pages that may call the API. If empty, no page may call it.
    pub cors_origins: Vec<String>,
    /// The log filter, in tracing's syntax.
    pub log: String,
    pub log_format: LogFormat,
    pub greenroom: Config,
    pub verifier: Verifier,
    /// The variables that are set but have no effect in this version.
    pub without_effect: Vec<&'static str>,
}

/// The settings of `token`: the signing secret and the names and values of the claims.
pub struct TokenSettings {
    pub secret: SecretString,
    pub rules: ClaimRules,
}

impl Settings {
    /// Reads all settings from the environment and the file. The environment overrides the file.
    ///
    /// # Errors
    /// Returns a fault for each variable that is missing or invalid.
    pub fn read(file: Option<&Path>) -> Result<Self, Faults> {
        Self::from_reader(Reader::from_environment(file))
    }

    /// Reads only `DATABASE_URL`, for commands that use nothing but the database.
    ///
    /// # Errors
    /// Returns a fault if `DATABASE_URL` is missing or invalid.
    pub fn database_url(file: Option<&Path>) -> Result<DatabaseUrl, Faults> {
        let mut reader = Reader::from_environment(file);
        let url = reader.get("DATABASE_URL", checked);
        reader.finish(url)
    }

    /// Reads only `GREENROOM_LISTEN`, the address of `serve`.
    ///
    /// # Errors
    /// Returns a fault if `GREENROOM_LISTEN` is invalid.
    pub fn listen(file: Option<&Path>) -> Result<SocketAddr, Faults> {
        let mut reader = Reader::from_environment(file);
        let listen = reader.get("GREENROOM_LISTEN", address);
        reader.finish(listen)
    }

    /// Reads only the settings of `token`.
    ///
    /// # Errors
    /// Returns a fault if `AUTH_JWT_SECRET` is missing, or for each invalid variable.
    pub fn token(file: Option<&Path>) -> Result<TokenSettings, Faults> {
        let mut reader = Reader::from_environment(file);
        let rules = claim_rules(&mut reader);
        let secret = match reader.given("AUTH_JWT_SECRET") {
            Some(_) => reader.get("AUTH_JWT_SECRET", jwt_secret),
            None => {
                reader.add_fault(
                    "AUTH_JWT_SECRET is required to sign a token, but it is not set. If tokens are \
                     verified with a public key, get a token from your identity provider",
                );
                None
            }
        };
        let settings = (|| Some(TokenSettings { secret: secret?, rules: rules? }))();
        reader.finish(settings)
    }

    fn from_reader(mut reader: Reader) -> Result<Self, Faults> {
        let listen = reader.get("GREENROOM_LISTEN", address);
        let cors_origins = reader.get("GREENROOM_CORS_ORIGINS", origins);
        let log = reader.get("GREENROOM_LOG", log_filter);
        let log_format = reader.get("GREENROOM_LOG_FORMAT", log_format);
        let database_url = reader.get("DATABASE_URL", checked);
        let database_pool_size = reader.get("DATABASE_POOL_SIZE", checked);
        let livekit = livekit(&mut reader);
        let token_ttl = reader.get("LIVEKIT_TOKEN_TTL_SECONDS", checked);
        let max_in_flight = reader.get("LIVEKIT_MAX_IN_FLIGHT", checked);
        let calls_per_minute = reader.get_optional("LIVEKIT_CALLS_PER_MINUTE", checked);
        let agent_deadline = reader.get("GREENROOM_AGENT_DEADLINE_SECONDS", checked);
        let reconcile_every = reader.get("GREENROOM_RECONCILE_SECONDS", checked);
        let on_livekit_down = reader.get("GREENROOM_ON_LIVEKIT_DOWN", |text| match text {
            "fail" => Ok(OnLiveKitDown::Fail),
            "token_only" => Ok(OnLiveKitDown::TokenOnly),
            _ => Err("must be fail or token_only".to_owned()),
        });
        let retention_days = reader.get_optional("GREENROOM_RETENTION_DAYS", checked);
        let max_active_sessions = reader.get_optional("GREENROOM_MAX_ACTIVE_SESSIONS", checked);
        let starts_per_minute = reader.get_optional("GREENROOM_STARTS_PER_MINUTE", checked);
        let keys = keys(&mut reader);
        let rules = claim_rules(&mut reader);
        check_variables_without_effect(&mut reader);
        let is_set = |name: &&'static str| reader.given(name).is_some();
        let without_effect = WITHOUT_EFFECT.iter().copied().filter(is_set).collect();
        let settings = (|| {
            let mut greenroom = Config::new(database_url?, livekit?);
            greenroom.database_pool_size = database_pool_size?;
            greenroom.token_ttl = token_ttl?;
            greenroom.agent_deadline = agent_deadline?;
            greenroom.reconcile_every = reconcile_every?;
            greenroom.on_livekit_down = on_livekit_down?;
            greenroom.livekit_max_in_flight = max_in_flight?;
            greenroom.livekit_calls_per_minute = calls_per_minute;
            greenroom.retention_days = retention_days;
            greenroom.max_active_sessions = max_active_sessions;
            greenroom.starts_per_minute = starts_per_minute;
            Some(Self {
                listen: listen?,
                cors_origins: cors_origins?,
                log: log?,
                log_format: log_format?,
                greenroom,
                verifier: Verifier::new(keys?, rules?),
                without_effect,
            })
        })();
        reader.finish(settings)
    }
}

fn livekit(reader: &mut Reader) -> Option<LiveKitConfig> {
    let url = reader.get("LIVEKIT_URL", checked);
    let api_url = reader.get_optional("LIVEKIT_API_URL", checked);
    let api_key = reader.get("LIVEKIT_API_KEY", checked);
    let api_secret = reader.get("LIVEKIT_API_SECRET", checked);
    let previous_key = previous_key(reader);
    let mut config = LiveKitConfig::new(url?, KeyPair::new(api_key?, api_secret?));
    config.api_url = api_url.unwrap_or(config.api_url);
    config.previous_key = previous_key;
    Some(config)
}

fn previous_key(reader: &mut Reader) -> Option<KeyPair> {
    let names = ["LIVEKIT_API_KEY_PREVIOUS", "LIVEKIT_API_SECRET_PREVIOUS"];
    if names.iter().filter(|name| reader.given(name).is_some()).count() == 1 {
        let [key, secret] = names;
        reader.add_fault(&format!("{key} and {secret} must be set together, but only one is set"));
    }
    let api_key = reader.get_optional(names[0], checked);
    let api_secret = reader.get_optional(names[1], checked);
    Some(KeyPair::new(api_key?, api_secret?))
}

/// Reads how callers' tokens are verified: by a shared secret, a public key or published keys.
fn keys(reader: &mut Reader) -> Option<Keys> {
    const SECRET: &str = "AUTH_JWT_SECRET";
    const PUBLIC_KEY: &str = "AUTH_JWT_PUBLIC_KEY_FILE";
    const JWKS: &str = "AUTH_JWKS_URL";
    const PREVIOUS: &str = "AUTH_JWT_SECRET_PREVIOUS";
    let is_set = [SECRET, PUBLIC_KEY, JWKS].map(|name| reader.given(name).is_some());
    let secret = reader.get_optional(SECRET, jwt_secret);
    let public_key = reader.get_optional(PUBLIC_KEY, public_key);
    let jwks = reader.get_optional(JWKS, jwks);
    let previous = reader.get_optional(PREVIOUS, jwt_secret);
    if reader.given(PREVIOUS).is_some() && !is_set[0] {
        reader.add_fault(&format!("{PREVIOUS} is set without {SECRET}; remove it, or set both"));
    }
    let count = is_set.iter().filter(|is_set| **is_set).count();
    if count != 1 {
        let names = format!("{SECRET}, {PUBLIC_KEY} and {JWKS}");
        reader.add_fault(&format!("exactly one of {names} must be set, but {count} are set"));
        return None;
    }
    let secrets = |secret| Keys::Secrets(secret_keys(&secret, previous.as_ref()));
    secret
        .map(secrets)
        .or(public_key.map(|key| Keys::Public(Box::new(key))))
        .or(jwks.map(Keys::Published))
}

fn secret_keys(current: &SecretString, previous: Option<&SecretString>) -> Vec<Key> {
    [current].into_iter().chain(previous).map(Key::from_secret).collect()
}

fn claim_rules(reader: &mut Reader) -> Option<ClaimRules> {
    let owned = |text: &str| Ok(text.to_owned());
    let issuer = reader.get_optional("AUTH_JWT_ISSUER", owned);
    let audience = reader.get_optional("AUTH_JWT_AUDIENCE", owned);
    let org_claim = reader.get("AUTH_ORG_CLAIM", claim_name);
    let user_claim = reader.get("AUTH_USER_CLAIM", claim_name);
    if org_claim.is_some() && org_claim == user_claim {
        reader.add_fault("AUTH_ORG_CLAIM and AUTH_USER_CLAIM must name different claims");
    }
    Some(ClaimRules { issuer, audience, org_claim: org_claim?, user_claim: user_claim? })
}

/// Checks the variables that have no effect yet, so that they are valid when a later version uses
/// them.
fn check_variables_without_effect(reader: &mut Reader) {
    reader.get_optional("GREENROOM_METRICS_LISTEN", address);
    reader.get("GREENROOM_CONSOLE", |text| match text {
        "true" | "false" => Ok(()),
        _ => Err("must be true or false".to_owned()),
    });
}

#[cfg(test)]
mod tests;
