//! The configuration: every variable, read and checked in one place, every fault told at once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use greenroom_core::domain::template::TokenTtl;
use greenroom_core::{Config, LiveKitConfig, ServerUrl};
use secrecy::SecretString;

/// The shortest secret that is one: HS256 under a shorter key can be guessed (RFC 7518, §3.2).
const SECRET_BYTES: usize = 32;

/// A variable of the environment.
pub struct Variable {
    pub name: &'static str,
    /// None: it is required.
    pub default: Option<&'static str>,
}

const fn required(name: &'static str) -> Variable {
    Variable { name, default: None }
}

const fn optional(name: &'static str, default: &'static str) -> Variable {
    Variable { name, default: Some(default) }
}

/// All of them, in the order of `.env.example`.
pub const VARIABLES: &[Variable] = &[
    optional("GREENROOM_LISTEN", "127.0.0.1:8080"),
    optional("GREENROOM_LOG", "info"),
    optional("GREENROOM_LOG_FORMAT", "text"),
    required("DATABASE_URL"),
    optional("DATABASE_POOL_SIZE", "10"),
    required("LIVEKIT_URL"),
    optional("LIVEKIT_API_URL", ""),
    required("LIVEKIT_API_KEY"),
    required("LIVEKIT_API_SECRET"),
    optional("LIVEKIT_TOKEN_TTL_SECONDS", "3600"),
    required("AUTH_JWT_SECRET"),
];

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What `serve` needs to know.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// A filter in tracing's syntax.
    pub log: String,
    pub log_format: LogFormat,
    pub greenroom: Config,
    /// Verifies callers' tokens.
    pub auth_jwt_secret: SecretString,
}

/// Everything that is wrong with a configuration; no value is ever repeated in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not usable:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// With every missing and every wrong variable.
    pub fn from_environment() -> Result<Self, Faults> {
        Self::read(Reader::of_environment()?)
    }

    /// Reads only what a command needs that talks to the database alone.
    ///
    /// # Errors
    /// When `DATABASE_URL` is missing or wrong.
    pub fn database_url() -> Result<SecretString, Faults> {
        let mut reader = Reader::of_environment()?;
        let url = reader.get("DATABASE_URL", database_url);
        reader.finish(url)
    }

    fn read(mut reader: Reader) -> Result<Self, Faults> {
        let listen = reader.get("GREENROOM_LISTEN", |text| {
            text.parse().map_err(|_| "must be an address and a port, such as 0.0.0.0:8080".into())
        });
        let log = reader.get("GREENROOM_LOG", log_filter);
        let log_format = reader.get("GREENROOM_LOG_FORMAT", log_format);
        let database_url = reader.get("DATABASE_URL", database_url);
        let database_pool_size = reader.get("DATABASE_POOL_SIZE", |text| {
            let size = text.parse().ok().filter(|size| (2..=200).contains(size));
            size.ok_or_else(|| "must be a whole number from 2 to 200".to_owned())
        });
        let livekit = livekit(&mut reader);
        let token_ttl = reader.get("LIVEKIT_TOKEN_TTL_SECONDS", token_ttl);
        let auth_jwt_secret = reader.get("AUTH_JWT_SECRET", long_secret);
        let settings = (|| {
            let greenroom = Config {
                database_url: database_url?,
                database_pool_size: database_pool_size?,
                livekit: livekit?,
                token_ttl: token_ttl?,
            };
            let (listen, log, log_format) = (listen?, log?, log_format?);
            Some(Self { listen, log, log_format, greenroom, auth_jwt_secret: auth_jwt_secret? })
        })();
        reader.finish(settings)
    }
}

fn livekit(reader: &mut Reader) -> Option<LiveKitConfig> {
    let url = reader.get("LIVEKIT_URL", server_url);
    let api_url = match reader.text("LIVEKIT_API_URL") {
        Some(text) if !text.is_empty() => reader.get("LIVEKIT_API_URL", server_url),
        _ => url.clone(),
    };
    let api_key = reader.get("LIVEKIT_API_KEY", |text| Ok(SecretString::from(text)));
    let api_secret = reader.get("LIVEKIT_API_SECRET", long_secret);
    Some(LiveKitConfig { url: url?, api_url: api_url?, api_key: api_key?, api_secret: api_secret? })
}

fn server_url(text: &str) -> Result<ServerUrl, String> {
    text.parse().map_err(|invalid| format!("{invalid}"))
}

fn token_ttl(text: &str) -> Result<TokenTtl, String> {
    // What is no number is told the range as well.
    let seconds = text.parse().unwrap_or(0_i64);
    TokenTtl::try_from(seconds).map_err(|invalid| invalid.to_string())
}

fn database_url(text: &str) -> Result<SecretString, String> {
    greenroom_core::check_database_url(text).map_err(|invalid| invalid.to_string())?;
    Ok(text.into())
}

fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("must be a filter in tracing's syntax, such as info or greenroom=debug".into())
        }
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("must be text or json".to_owned()),
    }
}

fn long_secret(text: &str) -> Result<SecretString, String> {
    if text.len() < SECRET_BYTES {
        return Err(format!(
            "must be at least {SECRET_BYTES} bytes; `openssl rand -hex 32` makes one"
        ));
    }
    Ok(text.into())
}

/// Reads variables one by one and remembers what was wrong with them.
struct Reader {
    texts: HashMap<String, String>,
    faults: Vec<String>,
}

impl Reader {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    fn of_environment() -> Result<Self, Faults> {
        let mut given = config::Map::new();
        let mut faults = Vec::new();
        for variable in VARIABLES {
            // Ours alone are read: another's text may be anything, and is nobody's business.
            match std::env::var_os(variable.name).map(OsString::into_string) {
                Some(Ok(text)) => drop(given.insert(variable.name.to_owned(), text)),
                Some(Err(_)) => faults.push(format!("{} must be UTF-8", variable.name)),
                None => {}
            }
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let unreadable = |error: config::ConfigError| Faults(vec![error.to_string()]);
        let source = config::Config::builder()
            .add_source(config::Environment::default().source(Some(given)))
            .build()
            .map_err(unreadable)?;
        // Strings only: the crate's own conversions stop at the first fault.
        let text = |variable: &Variable| source.get_string(&variable.name.to_lowercase()).ok();
        let texts = VARIABLES
            .iter()
            .filter_map(|variable| Some((variable.name.to_owned(), text(variable)?)));
        Ok(Self::of(texts.collect()))
    }

    fn of(texts: HashMap<String, String>) -> Self {
        Self { texts, faults: Vec::new() }
    }

    /// The variable's text, or its default; a required one that is absent or empty has none.
    fn text(&self, name: &str) -> Option<String> {
        let variable = VARIABLES.iter().find(|variable| variable.name == name)?;
        let given = self.texts.get(name).filter(|text| !text.is_empty());
        given.map(String::as_str).or(variable.default).map(str::to_owned)
    }

    fn get<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let parsed = match self.text(name) {
            Some(text) => parse(&text),
            None => Err("is required".to_owned()),
        };
        parsed.map_err(|fault| self.faults.push(format!("{name} {fault}"))).ok()
    }

    fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Faults(self.faults)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../.env.example");

    fn read(texts: &[(&str, &str)]) -> Result<Settings, Faults> {
        let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Settings::read(Reader::of(texts.collect()))
    }

    /// The example's assignments: name, text, and whether the line is commented out.
    fn example() -> Vec<(&'static str, &'static str, bool)> {
        EXAMPLE
            .lines()
            .filter_map(|line| {
                let assignment = line.strip_prefix('#').unwrap_or(line);
                let (name, text) = assignment.split_once('=')?;
                let named = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
                named.then_some((name, text, line.starts_with('#')))
            })
            .collect()
    }

    #[test]
    fn the_example_names_every_variable_with_its_default() {
        let named: Vec<_> = example().into_iter().map(|(name, ..)| name).collect();
        let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        assert_eq!(named, known);
        for (variable, (name, text, commented)) in VARIABLES.iter().zip(example()) {
            assert_eq!(
                commented,
                variable.default.is_some(),
                "{name}: only the required ones are set"
            );
            if let Some(default) = variable.default {
                assert_eq!(text, default, "{name}");
            }
        }
    }

    #[test]
    fn the_example_is_a_usable_configuration() {
        let set: Vec<_> = example().into_iter().filter(|(.., commented)| !commented).collect();
        let texts: Vec<_> = set.into_iter().map(|(name, text, _)| (name, text)).collect();
        assert!(read(&texts).is_ok());
    }

    #[test]
    fn every_fault_is_told_at_once_and_no_value_is_repeated() {
        let wrong: Vec<_> = VARIABLES.iter().map(|variable| (variable.name, "???s3cret")).collect();
        let told = read(&wrong).unwrap_err().to_string();
        for variable in
            VARIABLES.iter().filter(|variable| !matches!(variable.name, "LIVEKIT_API_KEY"))
        {
            assert!(told.contains(variable.name), "{} is not told in:\n{told}", variable.name);
        }
        assert!(!told.contains("s3cret"), "{told}");
    }

    #[test]
    fn what_is_missing_is_told_at_once() {
        let told = read(&[]).unwrap_err().to_string();
        for variable in VARIABLES {
            assert_eq!(
                told.contains(&format!("{} is required", variable.name)),
                variable.default.is_none()
            );
        }
    }
}
