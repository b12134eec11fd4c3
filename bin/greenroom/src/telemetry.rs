//! The log: its filter, format and destination.

use std::io;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};

/// Starts logging to standard error.
///
/// # Errors
/// Returns an error if the filter is invalid, or if logging was already started.
pub fn start(settings: &Settings) -> anyhow::Result<()> {
    // actix-http logs malformed requests as errors of this program. They are off unless the filter
    // names actix_http.
    let quiet = if settings.log.contains("actix_http") { "" } else { ",actix_http=off" };
    let filter = EnvFilter::try_new(format!("{}{quiet}", settings.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let result = match settings.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!(error))
}
