//! Opening a PostgreSQL connection, with settings that detect a dead server within seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_domain::{ErrorChain, Invalid, InvalidValue};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, Socket};

use crate::StoreError;

/// Maximum time to open a connection, including authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time after which the next host of the URL is tried as well. A healthy host in another region
/// responds sooner.
const HOST_DELAY: Duration = Duration::from_millis(500);

/// Time limit for canceling a statement and rolling back. It is longer than the `statement_timeout`
/// of the connection, so that a statement that cannot be canceled has ended as well.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(6);

/// Asks for messages in English, by which [`StoreError`] is classified, if the role may set
/// `lc_messages`. As a startup option, it would make PostgreSQL refuse any other role.
const ENGLISH_MESSAGES: &str = "select set_config('lc_messages', 'C', false)
    where has_parameter_privilege('lc_messages', 'set')";

/// An open connection, and the task that must drive it.
type Connected = (Client, Connection<Socket, NoTlsStream>);

/// The URL of a PostgreSQL database. `Debug` does not show it, because it may contain a password.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Returns the URL, with the password if it contains one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidValue;

    /// Accepts a URL to which [`connect`] can connect: well-formed, and without `sslmode=require`.
    /// Does not connect.
    fn from_str(url: &str) -> Result<Self, InvalidValue> {
        // The error contains no part of the URL.
        let invalid =
            |detail: &'static str| InvalidValue::new("database URL", Invalid::new(detail));
        let scheme = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        let config = Config::from_str(url).ok().filter(|_| scheme);
        let Some(config) = config else {
            return Err(invalid(
                "must be a URL such as postgres://user:password@host:5432/database",
            ));
        };
        if config.get_ssl_mode() == SslMode::Require {
            return Err(invalid(
                "must not set sslmode=require, because TLS to PostgreSQL is not supported",
            ));
        }
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// Opens a connection for the request path.
///
/// PostgreSQL cancels a statement on this connection after 5 s. Its transactions have the isolation
/// level `read committed`. If the URL names several hosts, the connection goes to one that accepts
/// writes. A statement that is sent to a server that has disappeared without closing the connection
/// fails within 5 s.
///
/// # Errors
/// Returns [`ConnectionError::InvalidConnectionUrl`] if the URL is malformed, and
/// [`ConnectionError::BadConnection`] if no server accepts the connection within 3 s.
pub async fn connect(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let mut config = parse(url)?;
    let options = config.get_options().unwrap_or_default();
    // If this process disappears, its idle transaction holds locks no longer than a statement may.
    // A statement after a lock must observe the commits before it, whatever the database's default.
    // PostgreSQL keeps the plan of a prepared statement until the table is analyzed: a plan from the
    // time when the table had one page would scan it although it has grown. A scan that is needed
    // nevertheless then has such high costs that PostgreSQL would compile its plan.
    let options = format!(
        "{options} -c statement_timeout=5000 -c idle_in_transaction_session_timeout=5000 \
         -c default_transaction_isolation=read\\ committed -c enable_seqscan=off -c jit=off"
    );
    config.options(options.trim());
    open(&config).await
}

/// Opens a connection for migrations. Its statements have no time-out.
pub(crate) async fn connect_without_timeout(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let mut config = parse(url)?;
    let options = config.get_options().unwrap_or_default();
    // The role or the database may have defaults.
    let options = format!(
        "{options} -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"
    );
    config.options(options.trim());
    open(&config).await
}

fn parse(url: &str) -> ConnectionResult<Config> {
    let mut config = Config::from_str(url)
        .map_err(|error| ConnectionError::InvalidConnectionUrl(chain(&error)))?;
    with_session_settings(&mut config);
    Ok(config)
}

fn with_session_settings(config: &mut Config) {
    config
        .application_name("greenroom")
        .tcp_user_timeout(Duration::from_secs(5))
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(2)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
}

async fn open(config: &Config) -> ConnectionResult<AsyncPgConnection> {
    // `Config::connect_timeout` covers only the TCP connection, which a stopped server still
    // accepts.
    let open = async {
        let connected = connect_to_first_writable(config).await;
        let (client, connection) = connected.map_err(ConnectionError::BadConnection)?;
        let opened = AsyncPgConnection::try_from_client_and_connection(client, connection).await;
        let mut opened = opened?;
        // A failure concerns only the language, or the next statement fails as well.
        let _ = opened.batch_execute(ENGLISH_MESSAGES).await;
        Ok(opened)
    };
    timeout(CONNECT_TIMEOUT, open).await.unwrap_or_else(|_| {
        Err(ConnectionError::BadConnection(format!("no response within {CONNECT_TIMEOUT:?}")))
    })
}

/// Connects to the first host that accepts writes, in the order of the URL. A host that does not
/// respond delays the next one only by [`HOST_DELAY`]: then both are tried at once.
async fn connect_to_first_writable(config: &Config) -> Result<Connected, String> {
    let mut hosts = split_hosts(config).into_iter();
    let (mut attempts, mut failure) = (JoinSet::new(), String::new());
    loop {
        let host = hosts.next();
        let is_last = host.is_none();
        if let Some(host) = host {
            attempts.spawn(async move { host.connect(NoTls).await });
        }
        let attempt = if is_last {
            attempts.join_next().await
        } else {
            timeout(HOST_DELAY, attempts.join_next()).await.unwrap_or_default()
        };
        match attempt {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(error))) => failure = chain(&error),
            Some(Err(error)) => failure = error.to_string(),
            None if is_last => return Err(failure),
            None => {}
        }
    }
}

/// Returns a configuration per host, because [`Config::connect`] has no time limit per host.
fn split_hosts(config: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let (ports, count) = (config.get_ports(), hosts.len().max(addresses.len()));
    if count < 2 || !matches!(ports.len(), 0 | 1) && ports.len() != count {
        // Also reports a wrong number of hosts or ports.
        return vec![config.clone()];
    }
    let host = |index: usize| {
        let mut one = Config::new();
        match hosts.get(index) {
            Some(Host::Tcp(host)) => drop(one.host(host)),
            #[cfg(unix)]
            Some(Host::Unix(path)) => drop(one.host_path(path)),
            None => {}
        }
        if let Some(address) = addresses.get(index) {
            one.hostaddr(*address);
        }
        // A single port is that of all hosts.
        if let Some(port) = ports.get(index).or(ports.first()) {
            one.port(*port);
        }
        if let Some(user) = config.get_user() {
            one.user(user);
        }
        if let Some(password) = config.get_password() {
            one.password(password);
        }
        if let Some(name) = config.get_dbname() {
            one.dbname(name);
        }
        if let Some(options) = config.get_options() {
            one.options(options);
        }
        one.ssl_mode(config.get_ssl_mode())
            .ssl_negotiation(config.get_ssl_negotiation())
            .channel_binding(config.get_channel_binding());
        with_session_settings(&mut one);
        one
    };
    (0..count).map(host).collect()
}

/// Cancels the statement in progress on a connection whose work was abandoned, and waits until
/// PostgreSQL has finished it. Afterwards the statement is committed or rolled back, and no
/// transaction is open.
///
/// # Errors
/// Returns a [`StoreError`] if PostgreSQL does not respond within 6 s, or if the connection is lost.
/// The statement may then still be in progress.
pub async fn settle(connection: &mut AsyncPgConnection) -> Result<(), StoreError> {
    let cancel = connection.cancel_token();
    let settled = timeout(SETTLE_TIMEOUT, async {
        // If the request is lost, the statement takes longer: until its `statement_timeout`.
        let request = cancel.cancel_query(NoTls);
        let (_, rolled_back) = tokio::join!(request, connection.batch_execute("rollback"));
        // A late request cancels the rollback instead.
        if rolled_back.is_err() { connection.batch_execute("rollback").await } else { rolled_back }
    });
    let no_response = |_| StoreError::Unavailable("no response to a cancel request".into());
    Ok(settled.await.map_err(no_response)??)
}

/// Rolls back after a failed statement. Returns whether the connection is lost; otherwise, no
/// transaction is open afterwards.
pub async fn rollback_or_lost(connection: &mut AsyncPgConnection) -> bool {
    // Succeeds in any state of a session, also without a transaction.
    connection.batch_execute("rollback").await.is_err()
}

/// The error with its causes. tokio-postgres displays only `db error` and has the reason as source.
fn chain(error: &tokio_postgres::Error) -> String {
    ErrorChain(error).to_string()
}

/// The server's `server_version_num`, such as 150018 for version 15.18.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn server_version(connection: &mut AsyncPgConnection) -> Result<i32, StoreError> {
    let version = sql::<Integer>("current_setting('server_version_num')::integer");
    Ok(diesel::select(version).get_result(connection).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_url_is_named_and_not_repeated() {
        for url in ["", "host=localhost", "mysql://ann:s3cret@host/db", "postgres://ann:s3cret@:x"]
        {
            let refused = url.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(refused.starts_with("database URL must be a URL"), "{url}: {refused}");
            assert!(!refused.contains("s3cret"), "{url}: {refused}");
        }
        let tls = "postgres://ann:s3cret@host/db?sslmode=require".parse::<DatabaseUrl>();
        let refused = tls.unwrap_err().to_string();
        assert!(refused.starts_with("database URL must not set sslmode=require"), "{refused}");
        assert!(!refused.contains("s3cret"), "{refused}");
    }

    #[test]
    fn debug_hides_the_url() {
        let url: DatabaseUrl = "postgresql://ann:s3cret@host:5432/db".parse().unwrap();
        assert_eq!(format!("{url:?}"), "DatabaseUrl(…)");
        assert_eq!(url.as_str(), "postgresql://ann:s3cret@host:5432/db");
    }
}
