//! Opening a PostgreSQL connection, with settings that detect a dead server within seconds.

use std::str::FromStr;
use std::time::Duration;

use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::{ErrorChain, Invalid};
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};

use crate::StoreError;

/// Maximum time to open a connection, including authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Checks that Greenroom can use this URL to connect to PostgreSQL. Does not connect.
///
/// # Errors
/// Returns [`Invalid`] if the URL is malformed or requires TLS. The message contains no part of the
/// URL, because the URL contains a password.
pub fn check(url: &str) -> Result<(), Invalid> {
    let scheme = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let config = Config::from_str(url).ok().filter(|_| scheme);
    let Some(config) = config else {
        return Err(Invalid::new(
            "must be a URL such as postgres://user:password@host:5432/database",
        ));
    };
    if config.get_ssl_mode() == SslMode::Require {
        let detail = "must not set sslmode=require, because TLS to PostgreSQL is not supported";
        return Err(Invalid::new(detail));
    }
    Ok(())
}

/// Opens a connection for the request path.
///
/// PostgreSQL cancels a statement on this connection after 5 s. If the URL names several hosts, the
/// connection goes to one that accepts writes. A statement that is sent to a server that has
/// disappeared without closing the connection fails within 5 s.
///
/// # Errors
/// Returns [`ConnectionError::InvalidConnectionUrl`] if the URL is malformed, and
/// [`ConnectionError::BadConnection`] if no server accepts the connection within 3 s.
pub async fn connect(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let mut config = parse(url)?;
    let options = config.get_options().unwrap_or_default();
    // If this process disappears, its idle transaction holds locks no longer than a statement may.
    let options =
        format!("{options} -c statement_timeout=5000 -c idle_in_transaction_session_timeout=5000");
    config.options(options.trim());
    open(&config).await
}

/// Opens a connection for migrations. Its statements have no time-out.
pub(crate) async fn connect_without_timeout(url: &str) -> ConnectionResult<AsyncPgConnection> {
    open(&parse(url)?).await
}

fn parse(url: &str) -> ConnectionResult<Config> {
    let mut config = Config::from_str(url)
        .map_err(|error| ConnectionError::InvalidConnectionUrl(chain(&error)))?;
    config
        .application_name("greenroom")
        .tcp_user_timeout(Duration::from_secs(5))
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(2)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    Ok(config)
}

async fn open(config: &Config) -> ConnectionResult<AsyncPgConnection> {
    // `Config::connect_timeout` covers only the TCP connection, which a stopped server still
    // accepts.
    let (client, connection) = timeout(CONNECT_TIMEOUT, config.connect(NoTls))
        .await
        .map_err(|_| {
            ConnectionError::BadConnection(format!("no answer within {CONNECT_TIMEOUT:?}"))
        })?
        .map_err(|error| ConnectionError::BadConnection(chain(&error)))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
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
