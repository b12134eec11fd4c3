//! The log.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};

/// Starts logging to the standard error stream.
///
/// # Errors
/// When the filter is wrong, or logging was started before.
pub fn start(settings: &Settings) -> anyhow::Result<()> {
    // Its parser logs what strangers send as errors of ours, unless somebody wants to see that.
    let quiet = if settings.log.contains("actix_http") { "" } else { ",actix_http=off" };
    let filter = EnvFilter::try_new(format!("{}{quiet}", settings.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match settings.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!(error))
}
