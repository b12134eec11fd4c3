//! Opening a PostgreSQL connection, with settings that detect a dead server within seconds.

mod stream;
mod tls;
mod url;

use std::error::Error;
use std::io;
use std::iter::successors;
use std::time::Duration;

use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use greenroom_domain::{ErrorChain, InvalidValue};
use rustls::AlertDescription;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Connection, Socket};

use self::stream::{SecureStream, Security};
use self::tls::TlsMode;
use self::url::{Settings, is_remote};
use crate::StoreError;

pub use self::url::DatabaseUrl;

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
type Connected = (Client, Connection<Socket, SecureStream>);

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
    // If this process disappears, its idle transaction holds locks no longer than a statement may.
    // A statement after a lock must observe the commits before it, whatever the database's default.
    // PostgreSQL keeps the plan of a prepared statement until the table is analyzed: a plan from the
    // time when the table had one page would scan it although it has grown. A scan that is needed
    // nevertheless then has such high costs that PostgreSQL would compile its plan.
    const SESSION: &str = "
        set statement_timeout = 5000;
        set idle_in_transaction_session_timeout = 5000;
        set default_transaction_isolation = 'read committed';
        set enable_seqscan = off;
        set jit = off";
    open(url, SESSION).await
}

/// Opens a connection for migrations. Its statements have no time-out.
pub(crate) async fn connect_without_timeout(url: &str) -> ConnectionResult<AsyncPgConnection> {
    // The role or the database may have defaults.
    const SESSION: &str = "
        set statement_timeout = 0;
        set lock_timeout = 0;
        set idle_in_transaction_session_timeout = 0";
    open(url, SESSION).await
}

/// Opens a connection, and then executes `session`. As startup options, these settings would make a
/// pooler refuse the connection.
async fn open(url: &str, session: &str) -> ConnectionResult<AsyncPgConnection> {
    let url: DatabaseUrl = url
        .parse()
        .map_err(|error: InvalidValue| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
    // `Config::connect_timeout` covers only the TCP connection, which a stopped server still
    // accepts.
    let open = async {
        let connected = connect_to_first_writable(url.settings()).await;
        let (client, connection) = connected.map_err(ConnectionError::BadConnection)?;
        let opened = AsyncPgConnection::try_from_client_and_connection(client, connection).await;
        let mut opened = opened?;
        let set = opened.batch_execute(session).await;
        set.map_err(ConnectionError::CouldntSetupConfiguration)?;
        // A failure concerns only the language, or the next statement fails as well.
        let _ = opened.batch_execute(ENGLISH_MESSAGES).await;
        Ok(opened)
    };
    timeout(CONNECT_TIMEOUT, open).await.unwrap_or_else(|_| {
        Err(ConnectionError::BadConnection(format!("no response within {CONNECT_TIMEOUT:?}")))
    })
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

/// Connects to the first host that accepts writes, in the order of the URL. A host that does not
/// respond delays the next one only by [`HOST_DELAY`]: then both are tried at once.
async fn connect_to_first_writable(settings: &Settings) -> Result<Connected, String> {
    let security = Security::of(settings)?;
    let is_disabled = settings.tls.mode == TlsMode::Disable;
    let mut hosts = split_hosts(&settings.driver).into_iter();
    let (mut attempts, mut failure) = (JoinSet::new(), String::new());
    loop {
        let host = hosts.next();
        let is_last = host.is_none();
        if let Some(host) = host {
            attempts.spawn(connect_to_host(host, security.clone()));
        }
        let attempt = if is_last {
            attempts.join_next().await
        } else {
            timeout(HOST_DELAY, attempts.join_next()).await.unwrap_or_default()
        };
        match attempt {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(error))) => failure = explain(&error, is_disabled),
            Some(Err(error)) => failure = error.to_string(),
            None if is_last => return Err(failure),
            None => {}
        }
    }
}

async fn connect_to_host(
    mut host: Config,
    mut security: Security,
) -> Result<Connected, tokio_postgres::Error> {
    let name = host.get_hosts().first().cloned();
    security.is_remote = is_remote(name.as_ref());
    if matches!(name, Some(Host::Tcp(_)) | None) {
        // `Security` negotiates TLS, if it is enabled.
        host.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    } else {
        host.ssl_mode(SslMode::Disable).ssl_negotiation(SslNegotiation::Postgres);
    }
    host.connect(security).await
}

/// Returns a configuration per host, because [`Config::connect`] has no time limit per host.
fn split_hosts(config: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let (ports, count) = (config.get_ports(), hosts.len().max(addresses.len()));
    if count < 2 || !matches!(ports.len(), 0 | 1) && ports.len() != count {
        // Also reports a wrong number of hosts or ports.
        let mut config = config.clone();
        with_session_settings(&mut config);
        return vec![config];
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
        one.channel_binding(config.get_channel_binding());
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
pub async fn settle(
    connection: &mut AsyncPgConnection,
    url: &DatabaseUrl,
) -> Result<(), StoreError> {
    let (cancel, security) = (connection.cancel_token(), Security::of(url.settings()));
    let settled = timeout(SETTLE_TIMEOUT, async {
        // If the request is lost, the statement takes longer: until its `statement_timeout`.
        let request = async {
            if let Ok(security) = security {
                let _ = cancel.cancel_query(security).await;
            }
        };
        let ((), rolled_back) = tokio::join!(request, connection.batch_execute("rollback"));
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

/// Describes why a connection was not opened, and what to do about TLS.
fn explain(error: &tokio_postgres::Error, is_tls_disabled: bool) -> String {
    // tokio-postgres displays only `db error` and has the reason as source.
    let reason = ErrorChain(error).to_string();
    let advice = match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(_)) => "; the server's certificate is not trusted",
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "; the server requires a client certificate: set sslcert and sslkey"
        }
        _ if error.code() != Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => "",
        _ if is_tls_disabled => "; if the server requires TLS, set sslmode=require",
        _ => "; if the server requires a client certificate, set sslcert and sslkey",
    };
    format!("{reason}{advice}")
}

/// Finds the error of TLS among the causes of an error.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut causes = successors(Some(error), |&error| error.source());
    causes.find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref())
}

/// The server's `server_version_num`, such as 150018 for version 15.18.
///
/// # Errors
/// Returns a [`StoreError`] if the query fails.
pub async fn server_version(connection: &mut AsyncPgConnection) -> Result<i32, StoreError> {
    let version = sql::<Integer>("current_setting('server_version_num')::integer");
    Ok(diesel::select(version).get_result(connection).await?)
}
