//! SessionSetup one connection, with the settings that decide how fast a dead server is noticed.

use std::str::FromStr;
use std::time::Duration;

use diesel::dsl::sql;
use diesel::sql_types::Integer;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use greenroom_domain::Invalid;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};

use crate::StoreError;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether this is the URL of a PostgreSQL that can be connected to.
///
/// # Errors
/// With what would be right, and nothing of the URL, which holds a password.
pub fn check(url: &str) -> Result<(), Invalid> {
    let scheme = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let config = Config::from_str(url).ok().filter(|_| scheme);
    let Some(config) = config else {
        return Err(Invalid::new(
            "must be a URL such as postgres://user:password@host:5432/database",
        ));
    };
    if config.get_ssl_mode() == SslMode::Require {
        let detail = "must not ask for sslmode=require: TLS to PostgreSQL is not supported yet";
        return Err(Invalid::new(detail));
    }
    Ok(())
}

/// Opens a connection for the request path.
///
/// No statement on it runs longer than 5 s; of several hosts in the URL the one that can write is
/// taken; a server that vanished without a word is noticed within 5 s.
///
/// # Errors
/// When the URL is wrong, or no server there accepts the connection within 3 s.
pub async fn connect(url: &str) -> ConnectionResult<AsyncPgConnection> {
    let mut config = parse(url)?;
    let options = config.get_options().unwrap_or_default();
    // A transaction whose client has gone without a word keeps its locks no longer than a statement.
    let options =
        format!("{options} -c statement_timeout=5000 -c idle_in_transaction_session_timeout=5000");
    config.options(options.trim());
    open(&config).await
}

/// Opens a connection for migrations, whose statements may take as long as they need.
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
    let bad = |reason: String| ConnectionError::BadConnection(reason);
    // The configuration's own time-out is over when TCP connects; a server that hangs does that.
    let (client, connection) = timeout(CONNECT_TIMEOUT, config.connect(NoTls))
        .await
        .map_err(|_| bad(format!("no answer within {CONNECT_TIMEOUT:?}")))?
        .map_err(|error| bad(chain(&error)))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

/// An error with its causes: tokio-postgres says `db error`, and leaves the reason to its source.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

/// The server's version as PostgreSQL counts it: 150018 is 15.18.
///
/// # Errors
/// When the database fails.
pub async fn server_version(connection: &mut AsyncPgConnection) -> Result<i32, StoreError> {
    let version = sql::<Integer>("current_setting('server_version_num')::integer");
    Ok(diesel::select(version).get_result(connection).await?)
}
