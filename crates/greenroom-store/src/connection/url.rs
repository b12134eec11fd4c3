//! The URL of a PostgreSQL database, with the parameters of libpq.
//!
//! The TLS parameters are read here, because tokio-postgres knows fewer of them. Parameters of other
//! drivers are ignored if they cannot change what Greenroom reads or writes, and refused by name
//! otherwise.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use greenroom_domain::{ErrorChain, Invalid, InvalidValue};
use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslNegotiation};

use super::tls::{ClientCertificate, Roots, TlsMode, TlsSettings};

const FORM: &str = "must be a URL such as postgres://user:password@host:5432/database";

/// The parameters that tokio-postgres reads.
const READ_BY_DRIVER: [&str; 19] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
    "sslnegotiation",
    "replication",
];

/// Parameters of other drivers that concern only those drivers, such as the size of their pool.
const IGNORED: [&str; 18] = [
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "pool_max_conns",
    "pool_min_conns",
    "socket_timeout",
    "statement_cache_size",
    "statement_cache_capacity",
    "prepared_statement_cache_size",
    "prepareThreshold",
    "binary_parameters",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "sslcompression",
    "sslsni",
    "supa",
    "uselibpqcompat",
];

/// Parameters that Greenroom cannot honor and must not ignore, and what to write instead.
const REFUSED: [(&str, &str); 11] = [
    ("schema", "write options=-csearch_path%3DNAME instead"),
    ("currentSchema", "write options=-csearch_path%3DNAME instead"),
    ("search_path", "write options=-csearch_path%3DNAME instead"),
    ("ssl", "write sslmode=verify-full instead"),
    ("tls", "write sslmode=verify-full instead"),
    (
        "sslaccept",
        "write sslmode=verify-full instead, or sslmode=require to accept any certificate",
    ),
    ("sslpassword", "store the key of sslkey without a passphrase"),
    ("sslcrl", "lists of revoked certificates are not supported"),
    ("sslcrldir", "lists of revoked certificates are not supported"),
    ("passfile", "write the password into the URL"),
    ("service", "write host, user and database into the URL"),
];

/// The URL of a PostgreSQL database. `Debug` does not show it, because it may contain a password.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    settings: Arc<Settings>,
}

/// What a URL says.
pub(super) struct Settings {
    pub(super) driver: Config,
    pub(super) tls: TlsSettings,
    ignored: Vec<String>,
}

impl DatabaseUrl {
    /// Returns the URL, with the password if it contains one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of the parameters that concern other drivers and have no effect.
    #[must_use]
    pub fn ignored_parameters(&self) -> &[String] {
        &self.settings.ignored
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidValue;

    /// Accepts a URL to which [`connect`](super::connect) can connect. Reads no file and does not
    /// connect. The error contains no part of the URL but the name of a parameter.
    fn from_str(url: &str) -> Result<Self, InvalidValue> {
        let settings = Settings::parse(url)
            .map_err(|detail| InvalidValue::new("database URL", Invalid::new(detail)))?;
        Ok(Self { text: url.to_owned(), settings: Arc::new(settings) })
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

impl Settings {
    fn parse(url: &str) -> Result<Self, Cow<'static, str>> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or(FORM)?;
        if let Some(character) = unescaped_character(rest) {
            return Err(format!(
                "must not contain {character} in the user name or password; write %{:02X} instead",
                u32::from(character)
            )
            .into());
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let parameters = Parameters::parse(query)?;
        let driver = format!("{base}?{}", parameters.read_by_driver.join("&"));
        let driver = Config::from_str(driver.trim_end_matches('?'));
        let mut driver = driver.map_err(|error| {
            let reason = ErrorChain(&error).to_string();
            // Other reasons may contain parts of the URL.
            match reason.split_once("invalid value for option ") {
                Some((_, name)) => format!("must have a valid value of {name}").into(),
                None => Cow::from(FORM),
            }
        })?;
        name_addresses(&mut driver);
        let tls = parameters.tls(driver.get_ssl_negotiation() == SslNegotiation::Direct)?;
        Ok(Self { driver, tls, ignored: parameters.ignored })
    }
}

/// The parameters of a URL.
#[derive(Default)]
struct Parameters<'a> {
    /// `name=value`, as in the URL.
    read_by_driver: Vec<&'a str>,
    ignored: Vec<String>,
    mode: Option<TlsMode>,
    roots: Option<Roots>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl<'a> Parameters<'a> {
    fn parse(query: &'a str) -> Result<Self, Cow<'static, str>> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            parsed.add(pair, &name, &value)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, pair: &'a str, name: &str, value: &str) -> Result<(), Cow<'static, str>> {
        match name {
            "sslmode" => self.mode = Some(value.parse()?),
            "sslrootcert" if value == "system" => self.roots = Some(Roots::System),
            "sslrootcert" => self.roots = Some(Roots::File(value.into())),
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            _ if READ_BY_DRIVER.contains(&name) => self.read_by_driver.push(pair),
            _ if IGNORED.contains(&name) => self.ignored.push(name.to_owned()),
            _ => {
                let advice = REFUSED.iter().find(|(refused, _)| *refused == name);
                return Err(match advice {
                    Some((name, advice)) => format!("must not set {name}; {advice}").into(),
                    None if is_name(name) => {
                        format!("must not set {name}, which no PostgreSQL client knows").into()
                    }
                    None => FORM.into(),
                });
            }
        }
        Ok(())
    }

    fn tls(&self, is_direct: bool) -> Result<TlsSettings, Cow<'static, str>> {
        let certificate = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => None,
            _ => return Err("must set both or neither of sslcert and sslkey".into()),
        };
        TlsSettings::new(self.mode, self.roots.clone(), certificate, is_direct)
    }
}

/// Whether a text may be shown: it is a name, and not a part of a password.
fn is_name(text: &str) -> bool {
    text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

fn decode(text: &str) -> Result<Cow<'_, str>, Cow<'static, str>> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map_err(|_| "must have parameters in UTF-8".into())
}

/// Returns a character that must be escaped in the user name and the password. `rest` is the URL after
/// its scheme.
fn unescaped_character(rest: &str) -> Option<char> {
    let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
    match before_query.rsplit_once('@') {
        Some((user, _)) => user.chars().find(|character| "@/".contains(*character)),
        // A question mark before the host, and not the beginning of the parameters.
        None => query
            .split_once('@')
            .is_some_and(|(password, _)| !password.contains('='))
            .then_some('?'),
    }
}

/// Uses addresses as names of the hosts if only addresses are given, because a certificate may be issued
/// for an address.
fn name_addresses(config: &mut Config) {
    if config.get_hosts().is_empty() {
        let addresses: Vec<IpAddr> = config.get_hostaddrs().to_vec();
        for address in addresses {
            config.host(address.to_string());
        }
    }
}

/// Whether a host is another machine. A Unix socket is not.
pub(super) fn is_remote(host: Option<&Host>) -> bool {
    match host {
        Some(Host::Tcp(name)) => {
            let address = name.parse::<IpAddr>();
            name != "localhost" && !address.is_ok_and(|address| address.is_loopback())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let refused = url.parse::<DatabaseUrl>().unwrap_err().to_string();
        assert!(!refused.contains("s3cret"), "{url}: {refused}");
        refused.strip_prefix("database URL ").unwrap().to_owned()
    }

    #[test]
    fn refused_url_is_named_and_not_repeated() {
        for url in ["", "host=localhost", "mysql://ann:s3cret@host/db"] {
            assert!(refusal(url).starts_with("must be a URL such as"), "{url}: {}", refusal(url));
        }
        assert_eq!(refusal("postgres://ann:s3cret@host:x"), "must have a valid value of `port`");
    }

    #[test]
    fn refused_parameters_are_named_with_advice() {
        for (parameters, sentence) in [
            ("schema=app", "must not set schema; write options=-csearch_path%3DNAME instead"),
            ("ssl=true", "must not set ssl; write sslmode=verify-full instead"),
            ("colour=red", "must not set colour, which no PostgreSQL client knows"),
            (
                "sslmode=strict",
                "must set sslmode to disable, allow, prefer, require, verify-ca or verify-full",
            ),
            ("sslcert=c.pem", "must set both or neither of sslcert and sslkey"),
            (
                "sslmode=require&sslrootcert=system",
                "must set sslmode=verify-full, because anyone can get a certificate from the system's authorities",
            ),
            (
                "sslmode=prefer&sslnegotiation=direct",
                "must set sslmode=require or stricter with sslnegotiation=direct",
            ),
            ("connect_timeout=soon", "must have a valid value of `connect_timeout`"),
        ] {
            assert_eq!(refusal(&format!("postgres://ann:s3cret@host/db?{parameters}")), sentence);
        }
    }

    #[test]
    fn unescaped_password_is_explained() {
        for (url, sentence) in [
            (
                "postgres://ann:s3cret@x@host/db",
                "must not contain @ in the user name or password; write %40 instead",
            ),
            (
                "postgres://ann:s3cret/x@host/db",
                "must not contain / in the user name or password; write %2F instead",
            ),
            (
                "postgres://ann:s3cret?x@host/db",
                "must not contain ? in the user name or password; write %3F instead",
            ),
        ] {
            assert_eq!(refusal(url), sentence);
        }
        let escaped = "postgres://ann:a%40b%2Fc%3Fd@host/db?application_name=a@b";
        assert!(escaped.parse::<DatabaseUrl>().is_ok());
    }

    #[test]
    fn parameters_of_other_drivers_are_ignored() {
        let url = "postgres://host/db?pgbouncer=true&sslmode=disable&connection_limit=5";
        let url: DatabaseUrl = url.parse().unwrap();
        assert_eq!(url.ignored_parameters(), ["pgbouncer", "connection_limit"]);
    }

    #[test]
    fn debug_hides_the_url() {
        let url: DatabaseUrl = "postgresql://ann:s3cret@host:5432/db".parse().unwrap();
        assert_eq!(format!("{url:?}"), "DatabaseUrl(…)");
        assert_eq!(url.as_str(), "postgresql://ann:s3cret@host:5432/db");
    }
}
